//! Family NET: default deny, and where pods that hold Secrets may send them.
//!
//! Room      `checks`.
//! Source    kubernetes.io/docs/concepts/services-networking/network-policies.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    finding::Severity,
    snapshot::{object::Object, pod::PodView, yaml::Node},
};

use super::{Fault, Judge, World, pods::is_system};

/// Judges the family.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    let policies: Vec<&Object> = world.snapshot.of_kind("NetworkPolicy").collect();
    let mut namespaces: BTreeMap<&str, Vec<&PodView<'_>>> = BTreeMap::new();
    for pod in world.pods.iter().filter(|pod| !is_system(pod.object.namespace())) {
        namespaces.entry(pod.object.namespace()).or_default().push(pod);
    }
    if !namespaces.is_empty() {
        judge.pass("NET-01");
    }
    for (namespace, pods) in &namespaces {
        let own: Vec<&Object> =
            policies.iter().filter(|p| p.namespace() == *namespace).copied().collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            default_deny(namespace, pods, &own, direction, judge);
        }
        for pod in pods {
            open_egress(pod, &own, judge);
        }
    }
    for policy in policies {
        everything_allowed(policy, judge);
    }
    enforcement(world, judge);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Whether a policy closes a direction for the pods that it selects.
fn closes(policy: &Object, direction: Direction) -> bool {
    let types = policy.root.at("spec.policyTypes");
    if types.items().is_empty() {
        // Without types, ingress always and egress when it has rules.
        return direction == Direction::Ingress || policy.root.at("spec.egress").is_there();
    }
    types.has(direction.name())
}

fn selects(policy: &Object, pod: &PodView<'_>) -> bool {
    matches(policy.root.at("spec.podSelector"), pod.metadata.get("labels"))
}

/// Whether labels match a selector.
pub(super) fn matches(selector: &Node, labels: &Node) -> bool {
    let by_label = selector.get("matchLabels").entries().iter().all(|(name, value)| {
        let label = labels.get(name);
        label.is_there() && label.value == value.value
    });
    let by_expression = selector.get("matchExpressions").items().iter().all(|expression| {
        let label = labels.get(expression.get("key").str());
        let is_listed = label.text().is_some_and(|text| expression.get("values").has(text));
        match expression.get("operator").str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => label.is_there(),
            "DoesNotExist" => !label.is_there(),
            _ => false,
        }
    });
    by_label && by_expression
}

/// One finding for a namespace in which some pod is open.
fn default_deny(
    namespace: &str,
    pods: &[&PodView<'_>],
    policies: &[&Object],
    direction: Direction,
    judge: &mut Judge,
) {
    let open: Vec<&&PodView<'_>> = pods
        .iter()
        .filter(|pod| !pod.spec.get("hostNetwork").is_true())
        .filter(|pod| {
            !policies.iter().any(|policy| closes(policy, direction) && selects(policy, pod))
        })
        .collect();
    let Some(first) = open.first() else { return };
    let holds_secrets = open.iter().any(|pod| !pod.secrets().is_empty());
    let names: BTreeSet<String> = open.iter().map(|pod| pod.object.subject()).collect();
    let sample: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let fix = default_deny_policy(namespace, direction);
    let title =
        format!("{} of {} pods is open in namespace {namespace}", direction.field(), open.len());
    let severity = if holds_secrets { Severity::Medium } else { Severity::Low };
    let fault = Fault::new(format!("Namespace/{namespace}"), first.object.place.clone(), title)
        .evidence(format!("no NetworkPolicy selects {}", sample.join(", ")))
        .detail(direction.name())
        .severity(severity)
        .fix(fix);
    judge.fail("NET-01", fault);
}

fn default_deny_policy(namespace: &str, direction: Direction) -> String {
    let name = direction.field();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: default-deny-{name}\n  namespace: {namespace}\nspec:\n  podSelector: {{}}\n  policyTypes: [{}]\n",
        direction.name()
    )
}

/// Whether a rule allows everywhere, or every address of the internet with the metadata service.
fn goes_anywhere(rule: &Node) -> Option<&'static str> {
    let peers = rule.get("to");
    if peers.items().is_empty() {
        // A rule for DNS alone leads nowhere else.
        let ports = rule.get("ports").items();
        let is_dns =
            !ports.is_empty() && ports.iter().all(|port| port.get("port").int() == Some(53));
        return (!is_dns).then_some("to every address");
    }
    peers.items().iter().find_map(|peer| {
        let block = peer.get("ipBlock");
        let is_all =
            matches!(block.get("cidr").str(), "0.0.0.0/0" | "::/0" | "0.0.0.0/1" | "128.0.0.0/1");
        let spares =
            |address: &str| block.get("except").texts().any(|net| net.starts_with(address));
        let spares_metadata = spares("169.254.") || spares("100.100.100.200");
        (is_all && !spares_metadata)
            .then_some("to every address, the cloud's metadata service included")
    })
}

fn open_egress(pod: &PodView<'_>, policies: &[&Object], judge: &mut Judge) {
    let secrets = pod.secrets();
    if secrets.is_empty() {
        return;
    }
    for policy in
        policies.iter().filter(|policy| closes(policy, Direction::Egress) && selects(policy, pod))
    {
        for rule in policy.root.at("spec.egress").items() {
            if let Some(whither) = goes_anywhere(rule) {
                let title = format!("a pod that holds Secrets may send {whither}");
                let fault = Fault::new(pod.object.subject(), policy.place_of(rule), title)
                    .evidence(format!("{} selects it; Secrets: {}", policy.subject(), secrets.join(", ")))
                    .detail(policy.subject())
                    .fix("Name the namespaces, pods or address blocks that it needs, and except 169.254.0.0/16:\n- to:\n  - ipBlock:\n      cidr: 0.0.0.0/0\n      except: [169.254.0.0/16, 100.100.100.200/32]\n  ports:\n  - port: 443");
                judge.fail("NET-01", fault);
            }
        }
    }
}

/// A policy for all pods with one empty rule undoes every other one.
fn everything_allowed(policy: &Object, judge: &mut Judge) {
    for direction in [Direction::Ingress, Direction::Egress] {
        let rules = policy.root.at("spec").get(direction.field());
        let open = rules.items().iter().find(|rule| rule.entries().is_empty());
        if let (Some(rule), true) = (open, closes(policy, direction)) {
            let title = format!(
                "allows all {}: policies add up, so no other one counts",
                direction.field()
            );
            let fault = Fault::new(policy.subject(), policy.place_of(rule), title)
                .detail(direction.name())
                .fix("Remove the empty rule; name peers and ports.");
            judge.fail("NET-01", fault);
        }
    }
}

/// Agents of network plugins that enforce policies, and of those known not to.
const ENFORCING: &[&str] = &[
    "calico-node",
    "cilium",
    "antrea-agent",
    "kube-router",
    "weave-net",
    "terway",
    "canal",
    "ovnkube-node",
    "azure-npm",
];
const IGNORING: &[&str] = &["kube-flannel", "flannel"];

fn enforcement(world: &World<'_>, judge: &mut Judge) {
    let agents: Vec<&Object> = world
        .snapshot
        .of_kind("DaemonSet")
        .filter(|set| ENFORCING.iter().chain(IGNORING).any(|name| set.name.starts_with(name)))
        .collect();
    let enforcing =
        agents.iter().find(|set| ENFORCING.iter().any(|name| set.name.starts_with(name)));
    match (enforcing, agents.first()) {
        (Some(_), _) if world.snapshot.origin.live => judge.pass("NET-02"),
        (Some(agent), _) => judge.unknown(
            "NET-02",
            agent.subject(),
            "this plugin can enforce policies; whether it runs only a cluster can tell",
        ),
        (None, Some(agent)) => {
            let title = "the network plugin accepts policies and does not enforce them";
            judge.fail("NET-02", Fault::new(agent.subject(), agent.place.clone(), title));
        }
        (None, None) if world.snapshot.origin.live => {
            judge.unknown("NET-02", "cluster", "the network plugin is not one that is known here")
        }
        (None, None) => {}
    }
}
