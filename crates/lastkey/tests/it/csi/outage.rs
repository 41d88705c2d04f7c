//! Pods that start while no server answers.

use tonic::Code;

use crate::csi::driver::Published;
use crate::csi::site::{Site, class, content};
use crate::issuer::{ISSUER, Issuer};
use crate::process::until;
use crate::world::audit_records;

#[test]
fn pod_of_a_known_account_starts_in_an_outage_and_the_log_hears_of_it_afterwards() {
    let mut site = Site::found();
    site.put("prod/shop/db", b"v1");
    site.put("prod/shop/unread", b"never");
    let _provider = site.provider(&[
        "--outage-hours",
        "2",
        "--cluster-jwks",
        "jwks",
        "--cluster-issuer",
        ISSUER,
    ]);
    let mut driver = site.driver();
    let db = class("- {secret: prod/shop/db}");
    driver.publish(&site.pod("pod-1"), &db).unwrap();
    site.server.process.kill();

    let new = site.pod("pod-2");
    assert!(matches!(driver.publish(&new, &db), Ok(Published::Mounted(_))));
    assert_eq!(content(&driver.target(&new), "db"), "v1");
    // Not for another account, not by a token of somebody else's keys, not for what the account
    // was never given, and not by the token of another pod.
    let other_account = site.pod_of("pod-3", "lastkey", "web");
    let mut forged = site.pod("pod-4");
    forged.tokens[0].1 = Issuer::new().token_of_pod("pod-4", "lastkey", "shop", "api");
    let mut stolen = site.pod("pod-5");
    stolen.tokens = site.pod("pod-6").tokens;
    let unread = class("- {secret: prod/shop/unread}");
    let away = Code::FailedPrecondition;
    for (pod, class, code) in [
        (&other_account, &db, away),
        (&forged, &db, away),
        (&site.pod("pod-7"), &unread, away),
        (&stolen, &db, Code::PermissionDenied),
    ] {
        let refused = driver.publish(pod, class).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }

    site.serve_again();
    let told = || {
        let records = audit_records(&site.installation.data, "--action secrets:ReportHolders");
        records.iter().any(|one| {
            let reason = one["reason"].as_str().unwrap();
            reason.contains("pod-2; given while no server answered") && !reason.contains("pod-1;")
        })
    };
    until("the record of what was given in the outage", told);
}
