//! POD-08: tokens and kubeconfigs without an end, and how to revoke each.
//!
//! Room      `checks`.

use crate::{
    finding::Severity,
    snapshot::object::{HIDDEN, KUBECONFIG, LAST_APPLIED, Object},
};

use super::super::{Fault, Judge, World};

/// Longest life of a projected token that is not worth a word, in seconds.
const LONGEST_TOKEN_LIFE: i64 = 86_400;

/// Judges Secrets, kubeconfigs and projected tokens.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    let mut is_seen = false;
    for secret in world.snapshot.of_kind("Secret") {
        is_seen = true;
        secret_tokens(secret, judge);
    }
    if world.snapshot.unread_secrets > 0 {
        let subject = format!("values of {} Secrets", world.snapshot.unread_secrets);
        let reason = "they are not read from a cluster, so whether a kubeconfig lies in one cannot be told; kubectl get secrets -A -o yaml | lastkey check --manifests - tells";
        judge.unknown("POD-08", subject, reason);
    }
    for config in world.snapshot.of_kind("Config") {
        is_seen = true;
        kubeconfig(world, config, judge);
    }
    for pod in &world.pods {
        for volume in pod.spec.get("volumes").items() {
            for source in volume.at("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                let life = token.get("expirationSeconds");
                is_seen |= token.is_there();
                if life.int().is_some_and(|seconds| seconds > LONGEST_TOKEN_LIFE) {
                    let fault = Fault::new(
                        pod.object.subject(),
                        pod.place_of(life),
                        "a mounted token lives longer than a day",
                    )
                    .evidence(format!("expirationSeconds: {}", life.int().unwrap_or_default()))
                    .severity(Severity::Low)
                    .fix("Set expirationSeconds: 3600; the kubelet renews the token by itself.");
                    judge.fail("POD-08", fault);
                }
            }
        }
    }
    if is_seen {
        judge.pass("POD-08");
    }
}

fn secret_tokens(secret: &Object, judge: &mut Judge) {
    let (namespace, name) = (secret.namespace(), &secret.name);
    if secret.root.get("type").text() == Some("kubernetes.io/service-account-token") {
        let account = secret.annotation("kubernetes.io/service-account.name").unwrap_or("?");
        let fault = Fault::new(secret.subject(), secret.place.clone(), format!("a token without an end for ServiceAccount {account}"))
            .evidence("type: kubernetes.io/service-account-token")
            .fix(format!("Revoke it: kubectl -n {namespace} delete secret {name}\nThen, where one is needed: kubectl -n {namespace} create token {account} --duration=1h"));
        judge.fail("POD-08", fault);
    }
    let kubeconfigs =
        secret.root.get("data").entries().iter().chain(secret.root.get("stringData").entries());
    for (entry, value) in kubeconfigs.filter(|(_, value)| value.text() == Some(KUBECONFIG)) {
        let fault = Fault::new(secret.subject(), secret.place_of(value), "a kubeconfig lies in a Secret")
            .evidence(format!("entry {entry}"))
            .severity(Severity::High)
            .fix(format!("Replace it by a bound token or a certificate of hours. Revoke what is in it: a token by deleting its Secret or ServiceAccount, a certificate by removing the bindings of its name. Then: kubectl -n {namespace} delete secret {name}"));
        judge.fail("POD-08", fault);
    }
    if let Some(value) = secret.annotation(LAST_APPLIED) {
        let node = secret.root.at("metadata.annotations").get(LAST_APPLIED);
        if value == HIDDEN {
            let fault = Fault::new(secret.subject(), secret.place_of(node), "an annotation keeps a copy of the Secret")
                .evidence(LAST_APPLIED)
                .fix(format!("kubectl -n {namespace} annotate secret {name} {LAST_APPLIED}-\nand apply Secrets with --server-side"));
            judge.fail("POD-08", fault);
        }
    }
}

/// A kubeconfig among manifests or outside the folders of the control plane.
fn kubeconfig(world: &World<'_>, config: &Object, judge: &mut Judge) {
    let is_at_home = world.snapshot.node.is_some()
        && ["/etc/kubernetes/", "/var/lib/kubelet/"]
            .iter()
            .any(|home| config.place.path.starts_with(home));
    if is_at_home {
        return;
    }
    for entry in config.root.get("users").items() {
        let user = entry.get("user");
        let secret = ["client-key-data", "token", "password"]
            .into_iter()
            .find(|field| user.get(field).text() == Some(HIDDEN));
        let Some(field) = secret else { continue };
        let name = entry.get("name").str();
        let fix = match field {
            "client-key-data" => {
                "A certificate cannot be revoked: remove the bindings of its name and groups, or, when it is in system:masters, renew the cluster's CA."
            }
            "token" => "Delete the token's Secret, or the ServiceAccount it belongs to.",
            _ => "Change the password.",
        };
        let fault = Fault::new(
            format!("Config/{name}"),
            config.place_of(user.get(field)),
            format!("a kubeconfig with the {field} of {name} lies among the files"),
        )
        .evidence(format!("{field}: {HIDDEN}"))
        .severity(Severity::High)
        .fix(format!("{fix}\nThen take the file out of the repository and its history."));
        judge.fail("POD-08", fault);
    }
}
