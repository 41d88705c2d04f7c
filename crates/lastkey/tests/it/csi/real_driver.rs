//! The driver's own code (tests/go-csi) in front of the provider: its messages, its checks, its
//! atomic writer, which is to accept what was pushed into a volume.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::csi::driver::{Class, Driver, Pod};
use crate::csi::site::{Site, class, content};
use crate::process::{command, go_build, not_run, run, until};

/// One mount by the real code.
fn mount(binary: &Path, driver: &Driver, pod: &Pod, class: &Class, socket: &Path) -> Value {
    let target = driver.target(pod);
    fs::create_dir_all(&target).unwrap();
    let request = driver.request(pod, class, &target);
    let asked = json!({ "attributes": request.attributes, "secrets": request.secrets,
        "target": request.target_path, "permission": request.permission });
    let mut program = command(binary);
    run(program.arg("--socket").arg(socket), asked.to_string().as_bytes()).json()
}

#[test]
#[ignore = "heavy: builds the client of the real driver"]
fn real_driver_takes_the_answers_and_accepts_what_was_pushed() {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("csimount");
    if let Err(reason) = go_build("tests/go-csi", &binary) {
        not_run(&format!("real_driver_takes_the_answers: {reason}"));
        return;
    }
    let site = Site::found();
    site.put_fields("prod/shop/db", &[("user", "u"), ("password", "one")]);
    let _provider = site.provider(&["--kubelet-dir", site.path("kubelet").to_str().unwrap()]);
    let (driver, pod) = (site.driver(), site.pod("pod-1"));
    let socket = site.path("providers/lastkey.sock");
    let objects = class(
        "- {secret: prod/shop/db, fields: all, prefix: db/}\n\
         - {secret: prod/shop/db, field: password, path: pw, mode: '0440'}\n",
    );
    let told = mount(&binary, &driver, &pod, &objects, &socket);
    assert_eq!(told["runtime"], "lastkey", "{told}");
    assert!(told["versions"]["pw"].as_str().unwrap().starts_with("1-"), "{told}");
    let target = driver.target(&pod);
    assert_eq!((content(&target, "pw"), content(&target, "db/user")), ("one".into(), "u".into()));

    site.put_fields("prod/shop/db", &[("user", "u"), ("password", "two")]);
    until("new bytes", || fs::read(target.join("pw")).is_ok_and(|bytes| bytes == b"two"));
    let pushed = fs::read_link(target.join("..data")).unwrap();
    let told = mount(&binary, &driver, &pod, &objects, &socket);
    assert!(told["versions"]["pw"].as_str().unwrap().starts_with("2-"), "{told}");
    assert_eq!(fs::read_link(target.join("..data")).unwrap(), pushed, "nothing was to be written");
    // Another class: the driver writes anew, and tidies up what was pushed.
    let told =
        mount(&binary, &driver, &pod, &class("- {secret: prod/shop/db, path: all}"), &socket);
    assert!(told["versions"]["all"].is_string(), "{told}");
    assert!(!target.join(&pushed).exists() && fs::symlink_metadata(target.join("pw")).is_err());
    let refused = mount(&binary, &driver, &pod, &class("- {secret: prod/other/db}"), &socket);
    assert_eq!(refused["code"], "PermissionDenied", "{refused}");
}
