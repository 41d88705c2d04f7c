//! A Kubernetes API server: get, list, watch, create, patch, delete.
//!
//! Room      `kube`. Objects are JSON as the server sends it; what they mean is decided by who
//!           asks. Every connection is made by `connect`.
//! Holds     The certificate of the server is always checked. A token from a file is read anew
//!           for each request, since the kubelet renews it.

mod access;
mod cluster;
mod kubeconfig;
mod review;
mod watch;

pub use access::{Access, Credential, IN_CLUSTER_DIR};
pub use cluster::{Cluster, Form, KubeError, Listed, Patch};
pub use kubeconfig::KubeconfigError;
pub use review::Reviewed;
pub use watch::{Change, Watch};
