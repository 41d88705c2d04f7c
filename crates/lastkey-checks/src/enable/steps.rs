//! What to do with the configuration, by how the control plane is run; and where nobody can.
//!
//! Room      `checks`.
//! Source    Documents of kubeadm, k3s, RKE2 and Talos, and of the managed services, as of
//!           November 2026.

use super::{Stage, Wanted};

/// How the control plane is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// By kubeadm.
    Kubeadm,
    /// k3s: the API server is a part of its process.
    K3s,
    /// RKE2: static pods that it writes itself.
    Rke2,
    /// Talos: all of it is machine configuration.
    Talos,
    /// Static pods that somebody wrote.
    StaticPod,
}

/// A service that runs the control plane and lets nobody near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its name.
    pub name: &'static str,
    /// What of a version or of a node's provider id it is recognised by.
    signs: &'static [&'static str],
    /// What its customer can switch on.
    pub offers: &'static str,
}

const MANAGED: [Managed; 7] = [
    Managed {
        name: "Amazon EKS",
        signs: &["-eks-", "aws:///", "eks.amazonaws.com/"],
        offers: "aws eks associate-encryption-config --cluster-name NAME --encryption-config '[{\"resources\":[\"secrets\"],\"provider\":{\"keyArn\":\"ARN\"}}]' (a key of AWS KMS; it cannot be taken back)",
    },
    Managed {
        name: "Google GKE",
        signs: &["-gke.", "gce://", "cloud.google.com/gke-"],
        offers: "gcloud container clusters update NAME --database-encryption-key projects/P/locations/L/keyRings/R/cryptoKeys/K (a key of Cloud KMS)",
    },
    Managed {
        name: "Azure AKS",
        signs: &["kubernetes.azure.com/", "azure:///"],
        offers: "az aks update --name NAME --resource-group GROUP --enable-azure-keyvault-kms --azure-keyvault-kms-key-id ID (a key of Azure Key Vault)",
    },
    Managed {
        name: "Alibaba Cloud ACK",
        signs: &["-aliyun.", "alibabacloud.com/nodepool-id", "node.csi.alibabacloud.com/"],
        offers: "Secret encryption in the cluster's security settings (ACK Pro, a key of Alibaba Cloud KMS)",
    },
    Managed {
        name: "Tencent TKE",
        signs: &["-tke.", "cloud.tencent.com/", "qcloud://"],
        offers: "etcd encryption by KMS in the cluster's settings",
    },
    Managed {
        name: "Huawei CCE",
        signs: &["-CCE", "cce.cloud.com/", "-r0-cce"],
        offers: "Secret encryption when a CCE cluster is created (a key of DEW)",
    },
    Managed {
        name: "DigitalOcean DOKS",
        signs: &["doks.digitalocean.com/", "digitalocean://"],
        offers: "nothing: etcd lies on disks that the provider encrypts",
    },
];

/// Recognises a managed control plane by any words that a cluster says of itself: the version of
/// its API server, provider ids and labels of its nodes.
///
/// Clouds give the same provider ids to machines of one's own, so a version says more.
#[must_use]
pub fn managed(words: &str) -> Option<Managed> {
    MANAGED.into_iter().find(|service| service.signs.iter().any(|sign| words.contains(sign)))
}

impl Managed {
    /// What is left to do there.
    #[must_use]
    pub fn left(&self) -> String {
        format!(
            "This control plane is run by {name}: nobody but the provider can add a KMS plugin.\n\
             \n\
             1. What the provider offers:\n   {offers}\n\
             2. Deliver secrets without Secret objects, so that etcd never holds them: to pods by\n   \
             the provider of secrets (docs/kubernetes/secrets.md), to programs by the API.\n\
             3. Look at what is still kept as Secrets, and who reads it:\n   \
             kubectl get secrets --all-namespaces -o json | lastkey check --manifests -\n",
            name = self.name,
            offers = self.offers
        )
    }
}

/// What to do, in order. `configuration` is what was made, `file` where it was written.
#[must_use]
pub fn steps(platform: Platform, wanted: &Wanted, configuration: &str, file: &str) -> String {
    let target = target(platform);
    let asked = Asked {
        platform,
        provider: &wanted.provider,
        socket: &wanted.socket,
        resources: &super::resources_of(wanted, configuration),
    };
    let mut text = match wanted.stage {
        Stage::Start => start(&asked, file, target),
        Stage::Finish => format!(
            "1. First prove that nothing is left: {}\n\
             2. Put {file} in place of {target} on every control plane node. An API server that\n   \
             reloads by itself takes it within a minute or so.\n",
            asked.verify()
        ),
        Stage::Back => format!(
            "1. Put {file} in place of {target} on every control plane node, and wait until each\n   \
             API server has taken it.\n\
             2. Rewrite everything: {}\n\
             3. Look that nothing is sealed any more: {}\n   \
             No key is named none, so whatever is still sealed counts as stale, also what is\n   \
             under the newest key. It has to hold before anything of step 4.\n\
             4. Take --encryption-provider-config away, then the plugin. Only then the key.\n",
            asked.rewrite_in_clear(),
            asked.verify_none_sealed()
        ),
    };
    text.push_str(AFTER);
    text
}

const AFTER: &str = "\n\
    Load balancers: ask /readyz?exclude=kms-providers, and alert on kms-providers by itself;\n\
    else an outage of the key service takes every API server out of the balancer at once.\n\
    Needs Kubernetes 1.32 or later: older API servers cannot talk to a plugin written in Rust on\n\
    a socket file.\n";

/// The platform, as the option says it.
const fn word(platform: Platform) -> &'static str {
    match platform {
        Platform::Kubeadm => "kubeadm",
        Platform::K3s => "k3s",
        Platform::Rke2 => "rke2",
        Platform::Talos => "talos",
        Platform::StaticPod => "static-pod",
    }
}

/// Where the configuration belongs.
const fn target(platform: Platform) -> &'static str {
    match platform {
        Platform::Kubeadm | Platform::StaticPod => "/etc/kubernetes/encryption/config.yaml",
        Platform::K3s | Platform::Rke2 => "/etc/lastkey/encryption/config.yaml",
        Platform::Talos => "the KubeEtcdEncryptionConfig document",
    }
}

fn start(asked: &Asked<'_>, file: &str, target: &str) -> String {
    let Asked { platform, provider, socket, .. } = *asked;
    let folder = socket.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let how = match platform {
        Platform::Kubeadm => format!(
            "3. In the ClusterConfiguration (kubectl -n kube-system edit configmap kubeadm-config), so\n   \
             that upgrades keep it, and in /etc/kubernetes/manifests/kube-apiserver.yaml:\n{}",
            static_pod(folder)
        ),
        Platform::StaticPod => {
            format!("3. In the manifest of kube-apiserver, one node after the other:\n{}", static_pod(folder))
        }
        Platform::K3s => "3. In /etc/rancher/k3s/config.yaml; not together with secrets-encryption, which\n   \
             brings a configuration of its own. Then systemctl restart k3s, one node after the other:\n\n   \
             kube-apiserver-arg:\n   \
             - encryption-provider-config=/etc/lastkey/encryption/config.yaml\n   \
             - encryption-provider-config-automatic-reload=true\n"
            .to_owned(),
        Platform::Rke2 => format!(
            "3. In /etc/rancher/rke2/config.yaml. RKE2 encrypts by aescbc already: give its file\n   \
             /var/lib/rancher/rke2/server/cred/encryption-config.json as --running in the step\n   \
             before this one. Then systemctl restart rke2-server, one node after the other:\n\n   \
             kube-apiserver-arg:\n   \
             - encryption-provider-config=/etc/lastkey/encryption/config.yaml\n   \
             - encryption-provider-config-automatic-reload=true\n   \
             kube-apiserver-extra-mount:\n   \
             - /etc/lastkey/encryption:/etc/lastkey/encryption:ro\n   \
             - {folder}:{folder}\n"
        ),
        Platform::Talos => format!(
            "3. Talos renders the file itself: releases with the document KubeEtcdEncryptionConfig\n   \
             take this one in it; older ones know no plugin. Give the configuration that runs as\n   \
             --running, so that what Talos sealed by secretbox stays readable. Mount the folder\n   \
             of the socket by cluster.apiServer.extraVolumes (hostPath {folder}), and run the\n   \
             plugin as a static pod of machine.pods.\n"
        ),
    };
    format!(
        "1. On every control plane node the plugin runs and answers on {socket}:\n   \
         docs/kubernetes/kms-plugin.md; the API server must not start before it.\n\
         2. {file} becomes {target} there, root:root 0600, the same on all nodes:\n   \
         install -D -m 0600 -o root -g root {file} {target}\n\
         {how}\
         4. When every API server is ready again, rewrite what is there: {}\n\
         5. Prove it: {}\n\
         6. Make the last step: lastkey etcd enable --provider {provider} --socket {socket} \\\n   \
         --platform {} --running {} --finish -o {file} --force\n",
        asked.rewrite(),
        asked.verify(),
        word(platform),
        // Where there is no file, this one is what is in force.
        if platform == Platform::Talos { file } else { target }
    )
}

/// Flags and mounts of a static pod. The folders are mounted, not the files: a file that is
/// replaced would stay the old one inside.
fn static_pod(folder: &str) -> String {
    format!(
        "\n   command:\n   \
         - --encryption-provider-config=/etc/kubernetes/encryption/config.yaml\n   \
         - --encryption-provider-config-automatic-reload=true\n   \
         volumeMounts:\n   \
         - {{name: encryption, mountPath: /etc/kubernetes/encryption, readOnly: true}}\n   \
         - {{name: kms, mountPath: {folder}}}\n   \
         volumes:\n   \
         - {{name: encryption, hostPath: {{path: /etc/kubernetes/encryption, type: Directory}}}}\n   \
         - {{name: kms, hostPath: {{path: {folder}, type: DirectoryOrCreate}}}}\n\n"
    )
}

/// What the commands that are printed are about.
struct Asked<'a> {
    platform: Platform,
    provider: &'a str,
    socket: &'a str,
    /// As the configuration names them, wildcards included.
    resources: &'a [String],
}

/// The wildcard for all there is.
const ALL: &str = "*.*";

impl Asked<'_> {
    /// Proves that everything is sealed under the plugin's key.
    fn verify(&self) -> String {
        let names = self.names(|name| if name == ALL { Some("'*'") } else { None });
        format!(
            "{} {} \\\n   {names}--require clear=0,stale=0{}",
            self.look(),
            self.key(),
            self.advice()
        )
    }

    /// Proves that nothing is sealed: under a key that nobody has no object is current.
    fn verify_none_sealed(&self) -> String {
        format!("{} \\\n   --key-id none --require stale=0", self.look())
    }

    /// Writes what is not sealed under the plugin's key once more.
    fn rewrite(&self) -> String {
        let etcd = self.etcd().unwrap_or_else(|| {
            "--endpoints https://NODE:2379 \\\n   --cacert FILE --cert FILE --key FILE".to_owned()
        });
        let kubeconfig = match self.platform {
            Platform::Kubeadm => "/etc/kubernetes/admin.conf",
            Platform::K3s => "/etc/rancher/k3s/k3s.yaml",
            Platform::Rke2 => "/etc/rancher/rke2/rke2.yaml",
            Platform::Talos | Platform::StaticPod => "KUBECONFIG",
        };
        let (key, names) = (self.key(), self.names(|_| None));
        format!(
            "lastkey etcd rewrite {key} \\\n   {names}\\\n   --kubeconfig {kubeconfig} {etcd}{}",
            self.advice()
        )
    }

    /// Writes everything once more, as it is; on the way back no key is the current one.
    fn rewrite_in_clear(&self) -> String {
        let plain = self.resources.iter().map(String::as_str).filter(|name| !is_wild(name));
        let wild = self.resources.iter().any(|name| is_wild(name)).then_some("R");
        let names: Vec<&str> = plain.chain(wild).collect();
        format!(
            "\n   kubectl get {} --all-namespaces -o json | kubectl replace -f -{}",
            names.join(","),
            self.advice()
        )
    }

    /// `verify` with all that says where etcd is.
    fn look(&self) -> String {
        match self.etcd() {
            Some(etcd) => format!("lastkey etcd verify {etcd}"),
            None => "talosctl etcd snapshot etcd.db && \\\n   \
                     lastkey etcd verify --snapshot etcd.db"
                .to_owned(),
        }
    }

    /// What tells the current key. Nobody sees the socket from outside of Talos.
    fn key(&self) -> String {
        match self.platform {
            Platform::Talos => "--key-id ID".to_owned(),
            Platform::Kubeadm | Platform::K3s | Platform::Rke2 | Platform::StaticPod => {
                format!("--socket {}", self.socket)
            }
        }
    }

    /// `--resource` for each resource; wildcards as `known` writes them, others once as a name
    /// that stands for each resource that they take.
    fn names(&self, known: impl Fn(&str) -> Option<&'static str>) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in self.resources {
            let name = if is_wild(name) { known(name).unwrap_or("R") } else { name };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.iter().map(|name| format!("--resource {name} ")).collect()
    }

    /// What to put for `R` and `ID`, where they stand.
    fn advice(&self) -> String {
        let wild: Vec<&str> =
            self.resources.iter().map(String::as_str).filter(|name| is_wild(name)).collect();
        let mut text = String::new();
        if !wild.is_empty() {
            text = format!(
                "\n   R: each resource of {}, one after the other, since a rewrite takes no\n   \
                 wildcard (kubectl api-resources --verbs=patch -o name)",
                wild.join(" and ")
            );
        }
        if self.platform == Platform::Talos {
            text.push_str("\n   ID: the plugin's key id of now");
        }
        text
    }

    /// Where etcd answers on a node, and what it asks for; none where only a snapshot is had.
    fn etcd(&self) -> Option<String> {
        let (folder, authority, certificate, key) = match self.platform {
            Platform::Kubeadm | Platform::StaticPod => (
                "/etc/kubernetes/pki",
                "etcd/ca.crt",
                "apiserver-etcd-client.crt",
                "apiserver-etcd-client.key",
            ),
            Platform::K3s => (
                "/var/lib/rancher/k3s/server/tls/etcd",
                "server-ca.crt",
                "client.crt",
                "client.key",
            ),
            Platform::Rke2 => (
                "/var/lib/rancher/rke2/server/tls/etcd",
                "server-ca.crt",
                "server-client.crt",
                "server-client.key",
            ),
            Platform::Talos => return None,
        };
        Some(format!(
            "--endpoints https://127.0.0.1:2379 \\\n   \
             --cacert {folder}/{authority} \\\n   --cert {folder}/{certificate} \\\n   \
             --key {folder}/{key}"
        ))
    }
}

fn is_wild(name: &str) -> bool {
    name.starts_with('*')
}
