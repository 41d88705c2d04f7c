//! What callers ask, checked: parameters of classes, capabilities, sizes.
//!
//! Room      `volumes`. Pure.
//! Source    CSI 1.13; the parameters of `diskplugin.csi.alibabacloud.com`.
//! Holds     `encrypted` is understood or refused, never taken for "off".

use std::collections::BTreeMap;

use lastkey_wire::grpc::csi::{AccessType, CapacityRange, VolumeCapability};

use crate::fault::{Fault, Kind};
use crate::record::Fs;

/// Sizes are multiples of a sector.
pub(crate) const SECTOR_LEN: u64 = 4_096;
/// What a claim gets that names no size, in bytes.
const USUAL_LEN: u64 = 1 << 30;
/// A file system fits, in bytes.
const LEAST_LEN: u64 = 1 << 20;
const MAX_NAME_LEN: usize = 256;

/// What an inline volume has in bytes when its pod names no size.
const USUAL_INLINE_LEN: u64 = 1 << 30;

/// Parameters that other drivers' classes have and that mean nothing for a local disk.
const IGNORED: [&str; 20] = [
    "alibabacloud.com/createdisk-arn",
    "burstingEnabled",
    "multiAttach",
    "performanceLevel",
    "performancelevel",
    "provisionedIops",
    "readOnly",
    "readonly",
    "regionId",
    "regionid",
    "resourceGroupId",
    "restrictToHpnZone",
    "storageClusterId",
    "type",
    "volumeDeleteSnapshotRetentionDays",
    "volumeExpandAutoSnapshot",
    "volumeSizeAutoAvailable",
    "zoneId",
    "zoneid",
    "diskTags",
];
const IGNORED_PREFIXES: [&str; 2] = ["csi.storage.k8s.io/", "diskTags/"];

/// Who opens a volume, and in which role.
const UNLOCK_AS: &str = "unlockAs";
const UNLOCK_ROLE: &str = "unlockRole";

/// What a StorageClass says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// The key as it was written; none for the driver's own choice.
    pub(crate) key: Option<String>,
    pub(crate) fs: Option<Fs>,
    pub(crate) discards: bool,
    /// The role that pods open it in; none when the driver opens it.
    pub(crate) role: Option<String>,
    /// Namespace and name of the claim, when the provisioner tells them.
    pub(crate) claim: Option<(String, String)>,
}

impl Class {
    pub(crate) fn parse(parameters: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let mut class =
            Self { key: None, fs: None, discards: false, role: None, claim: claim(parameters) };
        let (mut overriding, mut by_pods) = (None, false);
        for (name, value) in parameters {
            match name.as_str() {
                "encrypted" => must_be_on(value)?,
                "kmsKeyId" | "kmskeyid" => class.key = some_text(value),
                "alibabacloud.com/kms-key-id" => overriding = some_text(value),
                "fsType" | "fstype" | "csi.storage.k8s.io/fstype" => class.fs = fs(value)?,
                "discard" => class.discards = flag(name, value)?,
                UNLOCK_AS => by_pods = is_workload(value)?,
                UNLOCK_ROLE => class.role = some_text(required(UNLOCK_ROLE, value)?),
                other if is_ignored(other) => {}
                other => {
                    return Err(Fault::invalid(format!("the parameter {other:.64} is not known")));
                }
            }
        }
        class.key = overriding.or(class.key);
        if by_pods == class.role.is_some() {
            return Ok(class);
        }
        Err(Fault::invalid(
            "unlockAs: workload and unlockRole belong together: the role of the key service that pods \
             open the volume in",
        ))
    }
}

/// What a pod says of an inline volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inline {
    /// In bytes, if it says so.
    pub(crate) len: Option<u64>,
    pub(crate) fs: Option<Fs>,
}

impl Inline {
    pub(crate) fn parse(attributes: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let mut inline = Self { len: None, fs: None };
        for (name, value) in attributes {
            match name.as_str() {
                "encrypted" => must_be_on(value)?,
                "size" => inline.len = Some(quantity(value)?),
                "fsType" | "fstype" | "csi.storage.k8s.io/fstype" => inline.fs = fs(value)?,
                "kmsKeyId" | "kmskeyid" => {
                    return Err(Fault::invalid(
                        "an inline volume has a key of its own that nobody keeps: kmsKeyId is for \
                         claims",
                    ));
                }
                UNLOCK_AS | UNLOCK_ROLE => {
                    return Err(Fault::invalid(
                        "the key of an inline volume is in the kernel alone, and nobody is asked for \
                         it: unlockAs is for claims",
                    ));
                }
                other if is_ignored(other) => {}
                other => {
                    return Err(Fault::invalid(format!("the attribute {other:.64} is not known")));
                }
            }
        }
        Ok(inline)
    }

    /// How many bytes it gets, of at most so many.
    pub(crate) fn len_within(&self, most: u64) -> Result<u64, Fault> {
        let len = self.len.unwrap_or(USUAL_INLINE_LEN.min(most));
        if len <= most {
            return Ok(len);
        }
        let message = format!(
            "an inline volume may have {most} bytes on this node (--inline-limit), and {len} were \
             asked for"
        );
        Err(Fault::new(Kind::OutOfRange, message))
    }
}

/// A size as Kubernetes writes it: `500Mi`, `2G`, or bytes. Of whole sectors, at least 1 MiB.
///
/// # Errors
/// When it is none.
pub fn quantity(text: &str) -> Result<u64, Fault> {
    let wrong = || Fault::invalid(format!("size is {text:.32?}: give one such as 500Mi or 2Gi"));
    let text_only = text.trim();
    let end = text_only.find(|c: char| !c.is_ascii_digit()).unwrap_or(text_only.len());
    let (number, unit) = text_only.split_at_checked(end).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let bytes = bytes.filter(|bytes| *bytes >= LEAST_LEN).ok_or_else(wrong)?;
    bytes.checked_next_multiple_of(SECTOR_LEN).ok_or_else(wrong)
}

/// As `--extra-create-metadata` has the provisioner say it.
fn claim(parameters: &BTreeMap<String, String>) -> Option<(String, String)> {
    let of = |name| parameters.get(name).and_then(|value| some_text(value));
    of("csi.storage.k8s.io/pvc/namespace").zip(of("csi.storage.k8s.io/pvc/name"))
}

/// The pod that a volume is shown to, as kubelet says it with `podInfoOnMount`.
pub(crate) fn pod(context: &BTreeMap<String, String>) -> Option<String> {
    let of = |name| context.get(name).and_then(|value| some_text(value));
    let (namespace, name) =
        of("csi.storage.k8s.io/pod.namespace").zip(of("csi.storage.k8s.io/pod.name"))?;
    Some(format!("{namespace}/{name}"))
}

/// The pod that a volume is to be shown to, for messages: what counts is its token.
pub(crate) fn who(context: &BTreeMap<String, String>) -> String {
    let of = |name: &str| context.get(&format!("csi.storage.k8s.io/{name}")).map(String::as_str);
    let (namespace, account) = (of("pod.namespace"), of("serviceAccount.name"));
    match (namespace, account, of("pod.name")) {
        (Some(namespace), Some(account), Some(pod)) => {
            format!("the service account {namespace:.63}/{account:.253} (pod {pod:.253})")
        }
        (_, _, _) => "this pod".to_owned(),
    }
}

/// Whether a volume is opened in the name of the pods that use it.
fn is_workload(value: &str) -> Result<bool, Fault> {
    match value.trim() {
        "workload" => Ok(true),
        "driver" => Ok(false),
        other => Err(Fault::invalid(format!(
            "unlockAs is {other:.64?}; it is driver, or workload for the pods that use the volume"
        ))),
    }
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn some_text(value: &str) -> Option<String> {
    Some(value.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn must_be_on(value: &str) -> Result<(), Fault> {
    if flag("encrypted", value)? {
        return Ok(());
    }
    Err(Fault::invalid(
        "encrypted is off, and this driver makes encrypted volumes alone; leave the parameter out \
         or use another driver",
    ))
}

fn flag(name: &str, value: &str) -> Result<bool, Fault> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => {
            Err(Fault::invalid(format!("{name} is {value:.64?}, which is neither true nor false")))
        }
    }
}

fn fs(value: &str) -> Result<Option<Fs>, Fault> {
    match value {
        "" => Ok(None),
        "ext4" => Ok(Some(Fs::Ext4)),
        "xfs" => Ok(Some(Fs::Xfs)),
        other => Err(Fault::invalid(format!(
            "the file system {other:.32} is not made here; ext4 and xfs are"
        ))),
    }
}

/// How a volume is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Block,
    Mount { fs: Option<Fs>, flags: Vec<String> },
}

/// What a volume is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    pub(crate) access: Access,
    /// Nobody may write.
    pub(crate) read_only: bool,
    /// Shown to one pod alone.
    pub(crate) one_pod: bool,
}

impl Capability {
    pub(crate) fn parse(capability: Option<&VolumeCapability>) -> Result<Self, Fault> {
        let capability =
            capability.ok_or_else(|| Fault::invalid("volume_capability is missing"))?;
        let access = match &capability.access_type {
            None => return Err(Fault::invalid("the capability names no access type")),
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => {
                if !mount.volume_mount_group.is_empty() {
                    return Err(Fault::invalid("volume_mount_group is not served here"));
                }
                Access::Mount { fs: fs(&mount.fs_type)?, flags: mount.mount_flags.clone() }
            }
        };
        // The numbers of VolumeCapability.AccessMode.
        let (read_only, one_pod) = match capability.access_mode.map_or(0, |mode| mode.number) {
            1 | 7 => (false, false),
            2 => (true, false),
            6 => (false, true),
            0 => return Err(Fault::invalid("the capability names no access mode")),
            3..=5 => {
                return Err(Fault::invalid(
                    "a local volume is reachable from one node: use ReadWriteOnce",
                ));
            }
            other => return Err(Fault::invalid(format!("the access mode {other} is not known"))),
        };
        Ok(Self { access, read_only, one_pod })
    }

    pub(crate) fn parse_all(capabilities: &[VolumeCapability]) -> Result<Vec<Self>, Fault> {
        if capabilities.is_empty() {
            return Err(Fault::invalid("volume_capabilities are missing"));
        }
        capabilities.iter().map(|one| Self::parse(Some(one))).collect()
    }

    /// The file system that was asked for.
    pub(crate) fn fs(&self) -> Option<Fs> {
        match &self.access {
            Access::Block => None,
            Access::Mount { fs, .. } => *fs,
        }
    }
}

/// How large a volume is to be, in bytes, in whole sectors.
pub(crate) fn size(range: Option<&CapacityRange>, least: u64) -> Result<u64, Fault> {
    let bound = |bytes: i64| {
        u64::try_from(bytes).map_err(|_| Fault::new(Kind::OutOfRange, "a size below zero"))
    };
    let required = bound(range.map_or(0, |range| range.required_bytes))?;
    let limit = bound(range.map_or(0, |range| range.limit_bytes))?;
    let limit = if limit == 0 { u64::MAX } else { limit };
    let wanted = match (required, least) {
        (0, 0) => USUAL_LEN.min(limit / SECTOR_LEN * SECTOR_LEN),
        _ => required.max(least),
    };
    let wanted = wanted.max(LEAST_LEN).checked_next_multiple_of(SECTOR_LEN);
    wanted.filter(|size| *size <= limit && i64::try_from(*size).is_ok()).ok_or_else(|| {
        Fault::new(
            Kind::OutOfRange,
            format!("no size is at least {required} and at most {limit} bytes, in whole sectors"),
        )
    })
}

/// A text that must be there.
pub(crate) fn required<'a>(name: &str, value: &'a str) -> Result<&'a str, Fault> {
    match value.len() {
        0 => Err(Fault::invalid(format!("{name} is missing"))),
        len if len > MAX_NAME_LEN && !name.ends_with("path") => {
            Err(Fault::invalid(format!("{name} has more than {MAX_NAME_LEN} bytes")))
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lastkey_wire::grpc::csi::{
        AccessType, CapacityRange, Kind as Number, MountVolume, Nothing,
    };

    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The class of the vendor's documentation, and what a provisioner adds.
    #[test]
    fn class_of_another_driver_applies_unchanged() {
        let class = Class::parse(&parameters(&[
            ("type", "cloud_ssd"),
            ("fsType", "ext4"),
            ("encrypted", "true"),
            ("kmsKeyId", "0d1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
        ]));
        let class = class.unwrap();
        assert_eq!(class.key.as_deref(), Some("0d1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"));
        assert_eq!((class.fs, class.discards), (Some(Fs::Ext4), false));
        assert_eq!(class.claim, None, "half of a name");
        let claim = parameters(&[
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "shop"),
        ]);
        let claim = Class::parse(&claim).unwrap().claim;
        assert_eq!(claim, Some(("shop".to_owned(), "claim".to_owned())));
        assert!(Class::parse(&parameters(&[("discard", "true")])).unwrap().discards);
        assert_eq!(Class::parse(&BTreeMap::new()).unwrap().key, None);
    }

    #[test]
    fn volumes_are_opened_by_pods_in_a_role_or_by_the_driver() {
        let role =
            |pairs: &[(&str, &str)]| Class::parse(&parameters(pairs)).map(|class| class.role);
        let by_pods = role(&[("unlockAs", "workload"), ("unlockRole", "team-a")]).unwrap();
        assert_eq!(by_pods.as_deref(), Some("team-a"));
        for by_driver in [&[][..], &[("unlockAs", "driver")]] {
            assert_eq!(role(by_driver).unwrap(), None);
        }
        let long = "r".repeat(257);
        for bad in [
            &[("unlockAs", "workload")][..],
            &[("unlockAs", "workload"), ("unlockRole", &long)],
            &[("unlockAs", "workload"), ("unlockRole", " ")],
            &[("unlockRole", "team-a")],
            &[("unlockAs", "driver"), ("unlockRole", "team-a")],
            &[("unlockAs", "Workload"), ("unlockRole", "team-a")],
            &[("unlockAs", ""), ("unlockRole", "team-a")],
            &[("unlockas", "workload"), ("unlockRole", "team-a")],
        ] {
            assert_eq!(role(bad).unwrap_err().kind, Kind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn inline_volumes_say_their_size_as_kubernetes_does() {
        let len =
            |size: &str| Inline::parse(&parameters(&[("size", size)])).map(|one| one.len.unwrap());
        assert_eq!(len("500Mi").unwrap(), 500 << 20);
        assert_eq!(len("2G").unwrap(), 2_000_003_072, "whole sectors");
        assert_eq!(len("1048576").unwrap(), 1 << 20);
        let unsaid = Inline::parse(&BTreeMap::new()).unwrap();
        assert_eq!(unsaid.len_within(1 << 40).unwrap(), 1 << 30);
        assert_eq!(unsaid.len_within(1 << 20).unwrap(), 1 << 20);
        for bad in ["", "Mi", "1", "-1Gi", "1.5Gi", "1Pi", "99999999999Ti", "1 Gi"] {
            assert!(len(bad).is_err(), "{bad}");
        }
        let bad =
            [("kmsKeyId", "k"), ("encrypted", "false"), ("unlockAs", "driver"), ("other", "x")];
        for (name, value) in bad {
            assert!(Inline::parse(&parameters(&[(name, value)])).is_err(), "{name}");
        }
        let kubelet = parameters(&[("csi.storage.k8s.io/ephemeral", "true"), ("fsType", "xfs")]);
        assert_eq!(Inline::parse(&kubelet).unwrap().fs, Some(Fs::Xfs));
    }

    #[test]
    fn encrypted_is_understood_or_refused() {
        for on in ["true", "True", "YES", "1"] {
            assert!(Class::parse(&parameters(&[("encrypted", on)])).is_ok(), "{on}");
        }
        for other in ["false", "no", "0", "", "tru", "on", "enabled"] {
            let refused = Class::parse(&parameters(&[("encrypted", other)])).unwrap_err();
            assert_eq!(refused.kind, Kind::Invalid, "{other}");
        }
    }

    #[test]
    fn parameters_that_nobody_knows_are_refused() {
        for (name, value) in
            [("kmsKeyID", "k"), ("encryption", "off"), ("fsType", "ntfs"), ("discard", "maybe")]
        {
            let refused = Class::parse(&parameters(&[(name, value)])).unwrap_err();
            assert_eq!(refused.kind, Kind::Invalid, "{name}");
        }
    }

    #[test]
    fn capabilities_of_one_node_are_served() {
        let capability = |mode, access| VolumeCapability {
            access_mode: Some(Number { number: mode }),
            access_type: access,
        };
        let block = || Some(AccessType::Block(Nothing {}));
        for (mode, read_only, one_pod) in
            [(1, false, false), (2, true, false), (6, false, true), (7, false, false)]
        {
            let parsed = Capability::parse(Some(&capability(mode, block()))).unwrap();
            assert_eq!((parsed.read_only, parsed.one_pod), (read_only, one_pod));
        }
        for mode in [0, 3, 4, 5, 8] {
            assert!(Capability::parse(Some(&capability(mode, block()))).is_err(), "{mode}");
        }
        assert!(Capability::parse(Some(&capability(1, None))).is_err());
        assert!(Capability::parse(None).is_err() && Capability::parse_all(&[]).is_err());
        let ntfs = MountVolume { fs_type: "ntfs".to_owned(), ..MountVolume::default() };
        assert!(Capability::parse(Some(&capability(1, Some(AccessType::Mount(ntfs))))).is_err());
    }

    #[test]
    fn sizes_are_whole_sectors_within_their_bounds() {
        let size = |required_bytes, limit_bytes, least| {
            size(Some(&CapacityRange { required_bytes, limit_bytes }), least).map_err(|f| f.kind)
        };
        assert_eq!(super::size(None, 0).unwrap(), 1 << 30);
        assert_eq!(size(20 << 30, 0, 0), Ok(20 << 30));
        assert_eq!(size((1 << 20) + 1, 0, 0), Ok((1 << 20) + 4_096));
        assert_eq!(size(1, 0, 0), Ok(1 << 20));
        assert_eq!(size(0, 2 << 20, 0), Ok(2 << 20));
        assert_eq!(size(0, 0, 5 << 20), Ok(5 << 20));
        for (required, limit, least) in [
            (2 << 20, 1 << 20, 0),
            ((1 << 20) + 1, (1 << 20) + 2, 0),
            (-1, 0, 0),
            (0, -1, 0),
            (i64::MAX, 0, 0),
            (0, 4_096, 0),
            (0, 1 << 20, 2 << 20),
        ] {
            assert_eq!(size(required, limit, least), Err(Kind::OutOfRange), "{required} {limit}");
        }
    }
}
