//! The checks: what each is called, why it matters, what to do, and its names elsewhere.
//!
//! Room      `checks`.
//! Source    CIS Kubernetes Benchmark 1.12, NSA/CISA Kubernetes Hardening Guide (by Kubescape's
//!           control ids), Pod Security Standards, CIS ACK 1.0, GB/T 22239-2019 level 3.

use crate::{
    finding::{Mapping, Severity},
    report::RuleInfo,
};

/// One check, as this file says it.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Stable id: family and number.
    pub id: &'static str,
    /// Of its findings, unless one says otherwise.
    pub severity: Severity,
    /// One line: what must be so.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Items of published lists, each as `list:item`.
    pub mappings: &'static [&'static str],
    /// What it has to be given; said when nothing of it was.
    pub needs: Needs,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Objects: manifests or a cluster.
    Objects,
    /// RBAC objects.
    Rbac,
    /// Pods or their templates.
    Pods,
    /// The flags of a component: its static pod, or its process on the node.
    Component(&'static str),
    /// The EncryptionConfiguration.
    EncryptionConfiguration,
    /// The audit policy.
    AuditPolicy,
    /// Configuration or flags of the kubelet.
    Kubelet,
    /// A node's files.
    Node,
    /// An etcd snapshot.
    Etcd,
    /// Metrics of a running API server.
    Metrics,
    /// A running cluster.
    Cluster,
}

impl Needs {
    /// Whether a live cluster lists all that there is of it: where it lists none, there is
    /// nothing to judge.
    #[must_use]
    pub const fn is_listed(self) -> bool {
        match self {
            Self::Objects | Self::Rbac | Self::Pods => true,
            Self::Component(_)
            | Self::EncryptionConfiguration
            | Self::AuditPolicy
            | Self::Kubelet
            | Self::Node
            | Self::Etcd
            | Self::Metrics
            | Self::Cluster => false,
        }
    }

    /// Why a check could not tell, when it was given nothing.
    #[must_use]
    pub fn missing(self) -> String {
        let text = match self {
            Self::Objects => "no object of the kinds it judges was given",
            Self::Rbac => "no roles or bindings were given",
            Self::Pods => "no pods or workloads were given",
            Self::Component(name) => {
                return format!(
                    "the flags of {name} are not known: give its static pod (--manifests), a cluster \
                     that runs it as a pod (--kubeconfig), or the root of a control plane node \
                     (--node-root)"
                );
            }
            Self::EncryptionConfiguration => {
                "no EncryptionConfiguration was given: it lies on the control plane nodes"
            }
            Self::AuditPolicy => "no audit policy was given: it lies on the control plane nodes",
            Self::Kubelet => {
                "neither configuration nor flags of a kubelet were given (--node-root)"
            }
            Self::Node => "no node that has what it judges was given (--node-root)",
            Self::Etcd => "no etcd snapshot was given (--etcd-snapshot)",
            Self::Metrics => "it is read from the metrics of a running API server (--kubeconfig)",
            Self::Cluster => "only a running cluster can tell (--kubeconfig)",
        };
        text.to_owned()
    }
}

impl Check {
    /// As reports explain it.
    #[must_use]
    pub fn rule(&self) -> RuleInfo {
        RuleInfo {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            severity: self.severity,
            why: self.why.to_owned(),
            fix: self.fix.to_owned(),
            mappings: self.mappings(),
        }
    }

    /// Its items of published lists.
    #[must_use]
    pub fn mappings(&self) -> Vec<Mapping> {
        let parts = self.mappings.iter().filter_map(|mapping| mapping.split_once(':'));
        parts.map(|(list, item)| Mapping::new(list_name(list), item)).collect()
    }
}

/// The name of a list behind its short form in this file.
fn list_name(short: &'static str) -> &'static str {
    match short {
        "cis" => "CIS Kubernetes 1.12",
        "nsa" => "NSA/CISA",
        "pss" => "PSS",
        "mlps" => MLPS,
        "ack" => "CIS ACK 1.0",
        other => other,
    }
}

/// The list of the multi-level protection scheme.
pub const MLPS: &str = "GB/T 22239-2019 L3";

/// The check of an id.
#[must_use]
pub fn check(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

macro_rules! checks {
    ($($id:literal $severity:ident $needs:expr, $title:literal, $why:literal, $fix:literal,
       [$($map:literal),*];)*) => {
        /// All checks.
        pub const CHECKS: &[Check] = &[$(Check {
            id: $id,
            severity: Severity::$severity,
            needs: $needs,
            title: $title,
            why: $why,
            fix: $fix,
            mappings: &[$($map),*],
        }),*];
    };
}

const API: Needs = Needs::Component("kube-apiserver");
const ETCD: Needs = Needs::Component("etcd");

checks! {
    "ENC-01" High API, "The API server encrypts what it stores",
        "Without an encryption provider every Secret lies readable in etcd, in its snapshots and on the disks under them.",
        "Give kube-apiserver --encryption-provider-config=FILE with a KMS v2 provider first.",
        ["cis:1.2.27", "nsa:C-0066", "Kubescape:C-0141", "Trivy:KCV-0030", "Checkov:CKV_K8S_104", "ack:6.2.1", "mlps:8.1.4.8"];
    "ENC-02" Critical Needs::EncryptionConfiguration, "The first provider for secrets is not identity",
        "The API server writes with the first provider of the first block that names the resource. With identity there, Secrets are stored in the clear although a key provider is configured.",
        "Move identity to the end of the list, then rewrite all Secrets.",
        ["cis:1.2.28", "Kubescape:C-0142", "mlps:8.1.4.8"];
    "ENC-03" Medium Needs::EncryptionConfiguration, "Everything that holds credentials is covered by encryption",
        "Resources that no block names are stored in the clear; a block behind a wildcard is never used.",
        "Name secrets and configmaps, and the custom resources that hold credentials, in the block with the key provider.",
        ["cis:1.2.28", "mlps:8.1.4.8"];
    "ENC-04" Medium Needs::EncryptionConfiguration, "Keys of encryption lie in a key service (KMS v2)",
        "A key written into the configuration file is stolen together with the disk or backup that it should protect; KMS v1 is deprecated and slow.",
        "Use a provider kms with apiVersion: v2, first in the list; keep the old one behind it until all Secrets are rewritten.",
        ["cis:1.2.28", "Kubescape:C-0208", "ack:6.2.1", "mlps:8.1.10.9"];
    "ENC-05" High Needs::EncryptionConfiguration, "The encryption configuration is guarded and reloaded",
        "The file decides whether Secrets are encrypted and may hold keys; whoever can read or change it undoes the encryption.",
        "Keep the file root:root 0600 on the node, out of ConfigMaps, and switch on --encryption-provider-config-automatic-reload.",
        ["cis:1.1", "mlps:8.1.4.2"];
    "ENC-06" Critical Needs::Etcd, "Stored Secrets are encrypted in fact",
        "Configuration says what will be written; only the store says what was written. A value from before encryption stays readable until it is written again.",
        "kubectl get secrets --all-namespaces -o json | kubectl replace -f -",
        ["mlps:8.1.4.8"];
    "ENC-07" Medium Needs::Etcd, "No Secret is left under an old key",
        "A key that was rotated away because it leaked still opens everything that was not rewritten.",
        "Run a storage version migration of secrets, then look again.",
        ["mlps:8.1.10.9"];
    "ENC-08" High Needs::Metrics, "The encryption configuration was reloaded without fault",
        "After a broken change the API server goes on with the old configuration and only a metric tells.",
        "Mend the file, then watch apiserver_encryption_config_controller_automatic_reloads_total.",
        ["mlps:8.1.4.3"];
    "ENC-09" Medium Needs::Objects, "Volumes are encrypted",
        "Databases keep their files on volumes; a disk or snapshot that leaves the house takes them along.",
        "Set the parameter of your provisioner that encrypts (encrypted: \"true\") and name a key.",
        ["Kubescape:C-0264", "ack:6.4.1", "mlps:8.1.4.8"];
    "ETC-01" Critical ETCD, "etcd takes only clients with a certificate",
        "Whoever can talk to etcd reads and writes every object of the cluster past all permissions.",
        "Run etcd with --cert-file, --key-file, --trusted-ca-file and --client-cert-auth=true.",
        ["cis:2.1", "cis:2.2", "Trivy:KCV-0042", "mlps:8.1.4.1"];
    "ETC-02" High ETCD, "etcd does not make its own certificates",
        "A self-signed certificate proves nothing: everyone on the way can present one.",
        "Remove --auto-tls and --peer-auto-tls; use certificates of the etcd CA.",
        ["cis:2.3", "cis:2.6"];
    "ETC-03" High ETCD, "etcd members trust each other by certificate",
        "A member that anybody can join receives a copy of everything.",
        "Run etcd with --peer-cert-file, --peer-key-file, --peer-trusted-ca-file and --peer-client-cert-auth=true.",
        ["cis:2.4", "cis:2.5", "mlps:8.1.4.1"];
    "ETC-04" Medium Needs::Node, "etcd has an authority of its own",
        "With the cluster's CA every certificate of the cluster, also a kubelet's, opens etcd.",
        "Sign etcd's certificates by a CA that signs nothing else.",
        ["cis:2.7"];
    "ETC-05" High Needs::Node, "etcd's data can be read by etcd alone",
        "The database file holds every object of the cluster.",
        "chmod 700 the data directory and give it to the user of etcd; the same for snapshots.",
        ["cis:1.1.11", "cis:1.1.12", "mlps:8.1.4.2"];
    "ETC-06" High API, "The API server proves itself to etcd and checks it",
        "Without it, Secrets pass the network to whoever answers on etcd's port.",
        "Run kube-apiserver with --etcd-cafile, --etcd-certfile, --etcd-keyfile and https:// servers.",
        ["cis:1.2.23", "cis:1.2.26", "mlps:8.1.2.2"];
    "API-01" High API, "Strangers are not let in",
        "Anonymous requests get whatever somebody grants to system:unauthenticated by mistake.",
        "Run kube-apiserver with --anonymous-auth=false, or limit it to health paths by an AuthenticationConfiguration.",
        ["cis:1.2.1", "Kubescape:C-0262", "Trivy:KSV-0122", "mlps:8.1.4.1"];
    "API-02" High API, "There is no file of static tokens",
        "Static tokens lie in clear text, never expire and are revoked only by a restart.",
        "Remove --token-auth-file; use certificates, OIDC or ServiceAccount tokens.",
        ["cis:1.2.2", "mlps:8.1.4.1"];
    "API-03" Critical API, "Requests are authorized by Node and RBAC",
        "AlwaysAllow gives everybody everything; without Node each kubelet reads all Secrets.",
        "Run kube-apiserver with --authorization-mode=Node,RBAC.",
        ["cis:1.2.6", "cis:1.2.7", "cis:1.2.8", "mlps:8.1.4.2"];
    "API-04" High API, "Kubelets may change only what is theirs",
        "A stolen kubelet credential could relabel nodes and draw Secrets of other nodes to itself.",
        "Run kube-apiserver with --enable-admission-plugins=NodeRestriction.",
        ["cis:1.2.14", "mlps:8.1.4.2"];
    "API-05" Medium API, "Requests are recorded",
        "Without a record nobody can say which Secrets an intruder has read.",
        "Run kube-apiserver with --audit-policy-file and --audit-log-path, with --audit-log-maxage, --audit-log-maxbackup and --audit-log-maxsize, or with --audit-webhook-config-file.",
        ["cis:1.2.16", "cis:1.2.17", "cis:1.2.18", "cis:1.2.19", "cis:3.2.1", "nsa:C-0067", "mlps:8.1.4.3"];
    "API-06" High Needs::AuditPolicy, "The audit policy records access to Secrets, and never their content",
        "Below Metadata nothing is recorded; above it the values of Secrets and tokens stand in the log.",
        "Put a rule of level Metadata for secrets, configmaps, serviceaccounts/token and tokenreviews first.",
        ["cis:3.2.2", "Kubescape:C-0161", "mlps:8.1.4.3"];
    "API-07" Medium API, "ServiceAccount tokens are looked up and short",
        "Without the lookup, tokens of deleted accounts still work; with the extension a stolen token lives a year.",
        "Run kube-apiserver with --service-account-extend-token-expiration=false and without --service-account-lookup=false; give it --service-account-key-file.",
        ["cis:1.2.21", "cis:1.2.22", "cis:1.2.30", "mlps:8.1.4.1"];
    "API-08" Medium Needs::Component("kube-controller-manager"), "Each controller has its own account",
        "Otherwise all controllers act with the rights of all.",
        "Run kube-controller-manager with --use-service-account-credentials=true.",
        ["cis:1.3.3", "mlps:8.1.4.2"];
    "API-09" High Needs::Node, "Private keys and kubeconfigs of the control plane are guarded",
        "The CA's key makes administrators; admin.conf is one.",
        "chown root:root and chmod 600 the keys and kubeconfigs, 644 at most the certificates.",
        ["cis:1.1.13", "cis:1.1.14", "cis:1.1.19", "cis:1.1.20", "cis:1.1.21", "mlps:8.1.4.2"];
    "API-10" Low API, "Profiling is off",
        "Heap dumps of the API server hold Secrets.",
        "Run the components with --profiling=false.",
        ["cis:1.2.15", "cis:1.3.2", "cis:1.4.1"];
    "KUB-01" Critical Needs::Kubelet, "The kubelet knows who asks",
        "Anonymous callers of port 10250 run commands in every pod of the node.",
        "In the kubelet's configuration: authentication.anonymous.enabled: false.",
        ["cis:4.2.1", "nsa:C-0069", "mlps:8.1.4.1"];
    "KUB-02" Critical Needs::Kubelet, "The kubelet asks whether the caller may",
        "AlwaysAllow lets every certificate of the cluster run commands in pods.",
        "In the kubelet's configuration: authorization.mode: Webhook.",
        ["cis:4.2.2", "mlps:8.1.4.2"];
    "KUB-03" High Needs::Kubelet, "The kubelet's read-only port is closed",
        "Port 10255 shows pod specifications with their variables to everyone.",
        "In the kubelet's configuration: readOnlyPort: 0.",
        ["cis:4.2.4"];
    "KUB-04" Medium Needs::Kubelet, "The kubelet checks and renews certificates",
        "Without a client CA callers cannot prove themselves; without rotation keys live for years.",
        "In the kubelet's configuration: authentication.x509.clientCAFile, rotateCertificates: true, serverTLSBootstrap: true.",
        ["cis:4.2.3", "cis:4.2.10", "cis:4.2.11", "nsa:C-0070", "mlps:8.1.4.1"];
    "KUB-05" High Needs::Node, "The kubelet's files are guarded",
        "The kubelet's credentials read every Secret that a pod of the node mounts.",
        "chown root:root and chmod 600 the kubelet's configuration and kubeconfig.",
        ["cis:4.1.5", "cis:4.1.6", "cis:4.1.7", "cis:4.1.9", "cis:4.1.10", "mlps:8.1.4.2"];
    "KUB-06" Medium Needs::Node, "Secrets in memory are not swapped to disk",
        "Volumes of Secrets live in memory; with swap they reach the disk in the clear unless mounted noswap (kernel 6.3).",
        "Switch swap off, encrypt it, or run a kernel of 6.3 or later.",
        ["mlps:8.1.4.10"];
    "KUB-07" Low Needs::Node, "Core dumps do not write Secrets to disk",
        "The dump of an API server or kubelet holds the Secrets that it had in memory.",
        "Set kernel.core_pattern to |/bin/false, fs.suid_dumpable to 0, and LimitCORE=0 for the components.",
        ["mlps:8.1.4.10"];
    "RBA-01" High Needs::Rbac, "Only those who must can read Secrets",
        "get, list and watch all return the values.",
        "Name the Secrets (resourceNames), grant in one namespace, or remove the verbs.",
        ["cis:5.1.2", "nsa:C-0015", "Kubescape:C-0186", "Trivy:KSV-0041", "Checkov:CKV2_K8S_5", "mlps:8.1.4.2"];
    "RBA-02" High Needs::Rbac, "Nobody reads Secrets by a side door",
        "patch and deletecollection return the whole objects, also with dryRun=All.",
        "Remove patch and deletecollection on secrets from the role.",
        ["cis:5.1.2", "mlps:8.1.4.2"];
    "RBA-03" Medium Needs::Rbac, "edit and admin are not given where Secrets matter",
        "The built-in roles admin and edit read all Secrets of the namespace and can act as its ServiceAccounts.",
        "Bind a role of your own that leaves out secrets, or view.",
        ["cis:5.1.2", "mlps:8.1.4.2"];
    "RBA-04" High Needs::Rbac, "Rules say what they mean, without wildcards",
        "A wildcard covers secrets today and every resource that comes tomorrow.",
        "Name verbs, resources and groups.",
        ["cis:5.1.3", "Trivy:KSV-0044", "Trivy:KSV-0046", "Checkov:CKV_K8S_49", "mlps:8.1.4.2"];
    "RBA-05" Medium Needs::Rbac, "Only those who must can create pods",
        "Whoever creates a pod mounts any Secret and runs as any ServiceAccount of the namespace.",
        "Remove the verbs, or keep Secrets that matter in another namespace.",
        ["cis:5.1.4", "Kubescape:C-0188", "Trivy:KSV-0048", "mlps:8.1.4.2"];
    "RBA-06" Medium Needs::Rbac, "Only those who must can enter containers",
        "A shell in a pod reads its mounted Secrets and its token.",
        "Remove pods/exec, pods/attach, pods/portforward and pods/ephemeralcontainers.",
        ["nsa:C-0002", "Kubescape:C-0063", "Trivy:KSV-0053", "mlps:8.1.4.2"];
    "RBA-07" High Needs::Rbac, "Nobody issues tokens of other ServiceAccounts",
        "create on serviceaccounts/token makes a token of any ServiceAccount.",
        "Name the ServiceAccounts (resourceNames), or remove the rule.",
        ["cis:5.1.13", "Kubescape:C-0282", "mlps:8.1.4.2"];
    "RBA-08" High Needs::Rbac, "Nobody reaches kubelets through nodes/proxy",
        "Every verb on nodes/proxy, also get, runs commands in any pod of the node and is not audited.",
        "Use nodes/metrics, nodes/stats, nodes/log or nodes/pods in place of nodes/proxy.",
        ["cis:5.1.10", "Kubescape:C-0279", "Trivy:KSV-0047", "mlps:8.1.4.2"];
    "RBA-09" High Needs::Rbac, "Nobody raises their own rights",
        "impersonate acts as anyone; bind and escalate grant what one does not have.",
        "Remove the verbs, or name whom or what they may touch (resourceNames).",
        ["cis:5.1.8", "Kubescape:C-0065", "Kubescape:C-0191", "Trivy:KSV-0043", "Checkov:CKV_K8S_157", "Checkov:CKV_K8S_158", "mlps:8.1.4.2"];
    "RBA-10" High Needs::Rbac, "Nobody signs certificates alone",
        "Approving and signing a request gives a certificate of any name.",
        "Part the rights of approval and signing, and name the signers (resourceNames).",
        ["cis:5.1.11", "Kubescape:C-0280", "Checkov:CKV_K8S_156", "mlps:8.1.4.2"];
    "RBA-11" High Needs::Rbac, "Nobody but the platform changes admission",
        "A webhook or mutating policy sees and changes every object, Secrets included.",
        "Remove create, update and patch on admission configurations.",
        ["cis:5.1.12", "Kubescape:C-0281", "Trivy:KSV-0114", "Checkov:CKV_K8S_155", "mlps:8.1.4.2"];
    "RBA-12" Critical Needs::Rbac, "Nobody unneeded is administrator, and strangers are nothing",
        "cluster-admin and system:masters do everything; a grant to all authenticated or anonymous callers is a grant to everyone.",
        "Remove the subject from the binding, or bind a narrower role.",
        ["cis:5.1.1", "cis:5.1.7", "Kubescape:C-0035", "Kubescape:C-0262", "Kubescape:C-0265", "Trivy:KSV-0111", "mlps:8.1.4.2"];
    "RBA-13" Medium Needs::Rbac, "Nobody makes volumes of the host's files",
        "A PersistentVolume with hostPath reads any file of a node, past the pod security of the namespace.",
        "Remove create on persistentvolumes; provision by a StorageClass.",
        ["cis:5.1.9", "Kubescape:C-0278", "mlps:8.1.4.2"];
    "RBA-14" Medium Needs::Rbac, "Only the platform says which outside secrets come in",
        "Whoever writes a SecretProviderClass, ExternalSecret or store reads what its controller may read.",
        "Remove the verbs; let a pipeline of the platform write these objects.",
        ["mlps:8.1.4.2"];
    "RBA-15" High Needs::Rbac, "Nobody reads Secrets by becoming a ServiceAccount",
        "Creating pods, issuing tokens or impersonation gives the rights of the ServiceAccounts one can reach.",
        "Remove the way in, or take the Secrets away from the ServiceAccount.",
        ["cis:5.1.4", "mlps:8.1.4.2"];
    "RBA-16" Low Needs::Rbac, "There are no stale and no unused grants",
        "A binding to what is not there comes to life for whoever creates it; one to an account as which nothing runs is only there to be found.",
        "Delete the binding, and the account with it when nothing outside uses a token of it.",
        ["mlps:8.1.4.2"];
    "POD-01" Low Needs::Pods, "Pods that do not call the API carry no token",
        "A token in a pod is the first thing an intruder uses.",
        "automountServiceAccountToken: false in the pod, or in its ServiceAccount.",
        ["cis:5.1.6", "nsa:C-0034", "Kubescape:C-0190", "Trivy:KSV-0036", "Checkov:CKV_K8S_38"];
    "POD-02" Low Needs::Pods, "Pods do not run as the default ServiceAccount",
        "What is granted to default, every pod of the namespace has.",
        "Make a ServiceAccount for the workload and name it.",
        ["cis:5.1.5", "Kubescape:C-0189", "Checkov:CKV_K8S_41"];
    "POD-03" Medium Needs::Pods, "Secrets do not come by environment variables",
        "Variables are inherited by child processes and written into crash reports, logs and debug pages.",
        "Mount the Secret as files.",
        ["cis:5.4.1", "Kubescape:C-0207", "Checkov:CKV_K8S_35", "mlps:8.1.4.8"];
    "POD-04" High Needs::Objects, "No credential stands in a manifest",
        "Manifests lie in repositories, pipelines and everyone's clones.",
        "Revoke the credential, then keep it in a Secret or in the key service.",
        ["nsa:C-0012", "Trivy:KSV-0109", "Trivy:KSV-01010", "mlps:8.1.4.8"];
    "POD-05" High Needs::Pods, "Pods stay in their box",
        "A privileged pod, or one with the host's namespaces or folders, reads the Secrets of all pods of the node.",
        "Remove privileged, hostPID, hostIPC, hostNetwork and hostPath volumes.",
        ["cis:5.2.2", "cis:5.2.3", "cis:5.2.4", "cis:5.2.5", "cis:5.2.11", "nsa:C-0038", "nsa:C-0041", "nsa:C-0057", "pss:baseline", "mlps:8.1.4.2"];
    "POD-06" Medium Needs::Pods, "Containers have no rights they do not need",
        "Capabilities, root and a missing seccomp profile are what an intruder climbs out by.",
        "runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities.drop: [ALL], seccompProfile.type: RuntimeDefault.",
        ["cis:5.2.6", "cis:5.2.7", "cis:5.2.8", "cis:5.2.9", "nsa:C-0016", "nsa:C-0046", "nsa:C-0055", "pss:restricted", "mlps:8.1.4.2"];
    "POD-07" Medium Needs::Pods, "Pods with Secrets do not share their processes",
        "With shared processes each container reads the variables and files of the others in /proc.",
        "Remove shareProcessNamespace.",
        ["mlps:8.1.4.2"];
    "POD-08" Medium Needs::Objects, "There are no tokens without an end",
        "A token Secret never expires and works from anywhere; a kubeconfig with a key or token in it is a full identity.",
        "Delete the Secret (that revokes its token) and use projected tokens with an audience and an hour's life.",
        ["cis:5.1.6", "cis:3.1.2", "mlps:8.1.4.1"];
    "NET-01" Medium Needs::Pods, "Traffic is denied unless it is allowed",
        "Without policies every pod reaches every pod, the cloud's metadata service and the internet; an intruder carries Secrets out.",
        "A NetworkPolicy in each namespace that selects all pods and allows nothing, then one for each way that is needed.",
        ["cis:5.3.2", "nsa:C-0030", "nsa:C-0054", "Kubescape:C-0260", "Trivy:KSV-0038", "Checkov:CKV2_K8S_6", "mlps:8.1.2.1"];
    "NET-02" High Needs::Cluster, "The network enforces policies",
        "Some network plugins accept policies and do nothing.",
        "Use a plugin that enforces them (Calico, Cilium, Antrea and others), or add one beside it.",
        ["cis:5.3.1", "mlps:8.1.2.1"];
    "ADM-01" Medium Needs::Objects, "Something stops bad pods at the door",
        "Manifests that were never looked at reach the cluster too.",
        "Label namespaces pod-security.kubernetes.io/enforce: restricted, or use `lastkey check policy`.",
        ["cis:5.2.1", "mlps:8.1.4.2"];
    "MLP-01" Low API, "Records are kept for six months",
        "Article 21 of the Cybersecurity Law and level 3 ask for network logs of at least six months.",
        "Run kube-apiserver with --audit-log-maxage=180 or more, and ship the log elsewhere.",
        ["mlps:8.1.4.3"];
    "HST-01" Medium Needs::Node, "Remote login to the node is by key and not as root",
        "Passwords are guessed, and root's login says nothing about who it was.",
        "In sshd_config: PermitRootLogin no, PasswordAuthentication no, PermitEmptyPasswords no.",
        ["mlps:8.1.4.1"];
    "HST-02" High Needs::Node, "Accounts of the node are in order",
        "A second account with number 0 is root by another name; an empty password is none; old hashes are guessed in hours.",
        "Remove the account, lock it (passwd -l), or set a new password under yescrypt or SHA-512.",
        ["mlps:8.1.4.1"];
    "HST-03" High Needs::Node, "The ports of etcd, kubelet and API server are not reachable from outside",
        "Port 2379 is the whole store, 10250 runs commands in every pod, 10255 shows every pod; on 6443 the internet tries every stolen credential.",
        "Bind etcd to the node's own address and close the ports by firewall or security group; readOnlyPort: 0.",
        ["mlps:8.1.2.1", "mlps:8.1.3.2"];
    "HST-04" Medium Needs::Node, "Certificates of the control plane are valid for a while",
        "When they end, so does the cluster; renewed in a hurry, keys lie around.",
        "kubeadm certs renew all, then restart the control plane.",
        ["mlps:8.1.10.9"];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CHECKS;

    #[test]
    fn ids_are_unique_and_the_reference_table_is_whole() {
        let ids: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        let families = [("ENC", 9), ("ETC", 6), ("API", 10), ("KUB", 7), ("RBA", 14), ("POD", 8)];
        for (family, count) in families.into_iter().chain([("NET", 2), ("ADM", 1)]) {
            for number in 1..=count {
                let id = format!("{family}-{number:02}");
                assert!(ids.contains(id.as_str()), "{id}");
            }
        }
    }

    #[test]
    fn every_mapping_names_its_list() {
        for check in CHECKS {
            assert_eq!(check.mappings().len(), check.mappings.len(), "{}", check.id);
        }
    }
}
