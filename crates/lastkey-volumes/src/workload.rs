//! Volumes that are opened in the name of the pods that use them, by their own tokens.
//!
//! Room      `volumes`.
//! Source    docs/adr/0054-volumes-open-for-pods.md.
//! Holds     Whoever is shown such a volume has shown a token whose session recovered the data key, also
//!           when it was open already. Where no pod has it, it is closed.

use std::path::Path;

use lastkey_node::tokens::PodTokens;
use lastkey_wire::grpc::csi::PublishRequest;

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, session_fault};
use crate::node::shows;
use crate::record::VolumeRecord;
use crate::request::{Capability, who};
use crate::unlock::{Opener, Pod, Unlocked};

impl Driver {
    /// Opens a volume for a pod, or lets the pod show that it could open it.
    pub(crate) fn open_for_pod(
        &self,
        record: &mut VolumeRecord,
        role: &str,
        request: &PublishRequest,
        capability: &Capability,
        tokens: &PodTokens,
    ) -> Result<(), Fault> {
        if self.is_shown(&record.id, Path::new(&request.target_path))? {
            // The kubelet asks again; the pod has it.
            return Ok(());
        }
        let pod = self.pod(role, request, tokens)?;
        let staging = Path::new(&request.staging_path);
        if record.staged.as_deref() != Some(staging) {
            record.staged = Some(staging.to_owned());
            self.remember(record)?;
        }
        let made = self.make_ready(record, staging, capability, Opener::Pod(&pod));
        if made.is_err() {
            self.close_after_pods(record);
        }
        made
    }

    /// Whether a volume is open and to be seen at a path.
    fn is_shown(&self, id: &str, target: &Path) -> Result<bool, Fault> {
        let Some(mapping) = self.mapping(id)?.filter(|mapping| !mapping.suspended) else {
            return Ok(false);
        };
        Ok(self.mount_at(target)?.is_some_and(|mount| shows(&mount, &mapping)))
    }

    /// A session of the pod, by the token that the kubelet sent.
    fn pod(&self, role: &str, request: &PublishRequest, tokens: &PodTokens) -> Result<Pod, Fault> {
        let (who, audience) = (who(&request.context), &self.config.audience);
        let token = tokens.first_of(std::slice::from_ref(audience)).ok_or_else(|| {
            Fault::precondition(format!(
                "{who} opens this volume by its token, and the kubelet sent none of the audience \
                 {audience} (audiences: {}). Add `tokenRequests: [{{audience: {audience}}}]` to the \
                 CSIDriver object {}",
                tokens.audiences(),
                self.config.name
            ))
        })?;
        let session = self.keys.open_session(token, role);
        let session = session.map_err(|error| session_fault(&who, role, error))?;
        Ok(Pod { session, who })
    }

    /// What the driver may not do by itself later is done while a session of a pod is at hand.
    pub(crate) fn keep_for_pod(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        unlocked: Unlocked,
        by: Opener<'_>,
    ) {
        let (Opener::Pod(_), Some(info)) = (by, self.known(&record.key)) else { return };
        if let Err(fault) = self.keep_unlocked(record, disk, unlocked, &info, by) {
            self.complain(&record.id, &fault);
        }
    }

    /// Closes a volume that pods opened, when none of them has it. What cannot be closed now is closed
    /// when it is unstaged.
    pub(crate) fn close_after_pods(&self, record: &VolumeRecord) {
        let Some(staged) = record.staged.as_deref().filter(|_| record.role.is_some()) else {
            return;
        };
        let closed = self
            .is_idle(&record.id, staged)
            .and_then(|is_idle| if is_idle { self.shut(&record.id, staged) } else { Ok(()) });
        if let Err(fault) = closed {
            tracing::warn!(volume = record.id, "not closed after its last pod: {fault}");
        }
    }

    /// Whether nobody sees a volume but where it was made ready. One that stands still has no key in the
    /// kernel, and to unmount it would wait for that: it is left to the unstage.
    fn is_idle(&self, id: &str, staged: &Path) -> Result<bool, Fault> {
        let Some(mapping) = self.mapping(id)? else { return Ok(true) };
        let is_seen =
            self.mounts()?.iter().any(|mount| shows(mount, &mapping) && mount.at != staged);
        Ok(!mapping.suspended && !is_seen)
    }
}
