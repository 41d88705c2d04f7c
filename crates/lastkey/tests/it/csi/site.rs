//! A server over TLS, a cluster whose tokens it takes, a node of it, and its provider.

use std::fs;
use std::path::{Path, PathBuf};

use crate::csi::driver::{Class, Driver, Pod};
use crate::issuer::{ISSUER, Issuer};
use crate::process::{Ended, Running, run};
use crate::world::{Installation, Server, audit_records, text};

pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) installation: Installation,
    pub(crate) server: Server,
    issuer: Issuer,
}

impl Site {
    /// With the role `shop` for the account shop/api, by the agent of the pod's own node alone.
    #[track_caller]
    pub(crate) fn found() -> Self {
        Self::found_with(|_, _| String::new())
    }

    /// The same with more lines of configuration, by the folder and the key set of the cluster.
    #[track_caller]
    pub(crate) fn found_with(lines: impl FnOnce(&Path, &str) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let issuer = Issuer::new();
        let lines = lines(folder.path(), &issuer.jwks());
        let server = serve(&installation, &lines);
        let site = Self { folder, installation, server, issuer };
        site.write("jwks", &site.issuer.jwks());
        let actions = "Action::\"secrets:GetSecret\", Action::\"secrets:ListSecrets\"";
        site.write(
            "policy",
            &format!(
                "permit(principal in Role::\"shop\", action in [{actions}], \
                 resource in SecretPath::\"prod/shop\");"
            ),
        );
        site.ok(&format!(
            "cluster add here --issuer {ISSUER} --audience lastkey --audience vault \
             --audience sts.amazonaws.com --audience sts.aliyuncs.com --jwks jwks"
        ));
        site.ok("role create shop --cluster here --namespace shop --service-account api \
                 --by-node-agent --policy policy");
        site.write(
            "nodes",
            "permit(principal is Node, action in [Action::\"secrets:ListSecrets\", \
             Action::\"secrets:ReportHolders\"], resource is Secret);",
        );
        site.ok("policy put nodes nodes");
        let added = site.run("node add worker-1 --cluster here --output json").json();
        site.write("node.token", &text(&added["join_token"]));
        site.ok("node join worker-1 --token-file node.token --out node");
        for name in ["providers", "kubelet"] {
            fs::create_dir(site.path(name)).unwrap();
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn run(&self, line: &str) -> Ended {
        self.run_with(line, b"")
    }

    pub(crate) fn run_with(&self, line: &str, input: &[u8]) -> Ended {
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.folder.path()), input)
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// Writes a secret of bytes.
    #[track_caller]
    pub(crate) fn put(&self, name: &str, value: &[u8]) {
        fs::write(self.path("value"), value).unwrap();
        self.ok(&format!("secret put {name} --value-file value"));
    }

    /// Writes a secret of fields.
    #[track_caller]
    pub(crate) fn put_fields(&self, name: &str, fields: &[(&str, &str)]) {
        let mut line = format!("secret put {name}");
        for (field, value) in fields {
            self.write(&format!("field-{field}"), value);
            line.push_str(&format!(" --field-file {field}=field-{field}"));
        }
        self.ok(&line);
    }

    /// `lastkey secrets-provider` of the node, with more arguments.
    pub(crate) fn provider_command(&self, more: &[&str]) -> std::process::Command {
        let mut command = self.server.client(["secrets-provider", "--provider-dir", "providers"]);
        command.env_remove("LASTKEY_TOKEN").current_dir(self.folder.path());
        command.args(["--identity", "node/node.pem"]).args(more);
        command
    }

    #[track_caller]
    pub(crate) fn provider(&self, more: &[&str]) -> Running {
        let process = Running::start(&mut self.provider_command(more));
        let ready = process.says("lastkey secrets-provider serves");
        ready.unwrap_or_else(|| panic!("not ready: {}", process.complaint()));
        process
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::new(&self.path("providers"), &self.path("kubelet"))
    }

    /// A pod of the account shop/api on the node.
    pub(crate) fn pod(&self, uid: &str) -> Pod {
        self.pod_of(uid, "lastkey", "api")
    }

    pub(crate) fn pod_of(&self, uid: &str, audience: &str, account: &str) -> Pod {
        Pod {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            account: account.to_owned(),
            tokens: vec![(
                audience.to_owned(),
                self.issuer.token_of_pod(uid, audience, "shop", account),
            )],
            volume_attributes: Vec::new(),
        }
    }

    /// The account shop/api by a token that belongs to no pod, in the name of a pod of this UID.
    pub(crate) fn account_without_pod(&self, uid: &str) -> Pod {
        let token = self.issuer.token_without_pod("lastkey", "shop", "api");
        Pod { tokens: vec![("lastkey".to_owned(), token)], ..self.pod(uid) }
    }

    /// Records of an action in the audit log.
    pub(crate) fn audited(&self, action: &str) -> usize {
        audit_records(&self.installation.data, &format!("--action {action}")).len()
    }

    /// Starts the server anew, where it was.
    #[track_caller]
    pub(crate) fn serve_again(&mut self) {
        let place = self.server.addr.trim_start_matches("https://").to_owned();
        self.server = serve(&self.installation, &format!("listen.tcp = ['{place}']"));
    }
}

#[track_caller]
fn serve(installation: &Installation, lines: &str) -> Server {
    let mut server = installation.serve(lines);
    let ca = installation.data.join("tls/ca.pem").to_str().unwrap().to_owned();
    server.env.push(("LASTKEY_CA".to_owned(), ca));
    installation.unseal(&server);
    server
}

/// A class of ours with the role `shop`.
pub(crate) fn class(objects: &str) -> Class {
    class_of("lastkey", &[("role", "shop"), ("objects", objects)])
}

pub(crate) fn class_of(provider: &str, parameters: &[(&str, &str)]) -> Class {
    let parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Class { provider: provider.to_owned(), parameters: parameters.collect() }
}

/// A file of a volume, as text.
#[track_caller]
pub(crate) fn content(target: &Path, name: &str) -> String {
    let path = target.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
