//! What seals local keys of a node's doors to this machine: its TPM.
//!
//! Room      the binary: `node::ports::MachineSeal` by `connect`.

use async_trait::async_trait;
use lastkey_connect::seal::tpm::{Tcti, seal_here, unseal_here};
use lastkey_node::ports::{Cause, MachineSeal};
use lastkey_secret::SecretArray;

/// The TPM, and the registers (PCRs) that a sealed key is bound to.
#[derive(Clone, Debug)]
pub(crate) struct TpmSeal {
    pub(crate) tcti: Tcti,
    pub(crate) registers: Vec<u8>,
}

#[async_trait]
impl MachineSeal for TpmSeal {
    async fn seal(&self, key: &SecretArray<32>) -> Result<Vec<u8>, Cause> {
        let (seal, key) = (self.clone(), key.expose(SecretArray::copy_of));
        blocking(move || Ok(seal_here(&seal.tcti, &seal.registers, &key)?)).await
    }

    async fn unseal(&self, sealed: &[u8]) -> Result<SecretArray<32>, Cause> {
        let (tcti, sealed) = (self.tcti.clone(), sealed.to_vec());
        blocking(move || Ok(unseal_here(&tcti, &sealed)?)).await
    }
}

/// A TPM answers when it likes to.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, Cause> {
    tokio::task::spawn_blocking(work).await?
}
