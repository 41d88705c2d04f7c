//! Volumes of pods: what is in them, what they cost, and what a person reads when there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tonic::Code;

use crate::csi::driver::{Pod, Published};
use crate::csi::site::{Site, class, class_of, content};
use crate::http::Http;
use crate::process::{run, until};
use crate::world::{audit_records, text};

#[test]
fn pod_gets_its_files_by_its_own_token_and_again_for_nothing() {
    let site = Site::found();
    site.put("prod/shop/tls", b"\x00\xff key");
    site.put_fields("prod/shop/db", &[("user", "u"), ("password", "p$1")]);
    let provider = site.provider(&[]);
    let mut driver = site.driver();
    assert_eq!(driver.version("lastkey").unwrap().runtime_name, "lastkey");
    let pod = site.pod("pod-1");
    let class = class(
        "\
- {secret: prod/shop/tls, path: tls/key, mode: '0400'}
- {secret: prod/shop/db, field: password, path: pw}
- {secret: prod/shop/db, fields: all, prefix: db/}
- {secret: prod/shop/gone, optional: true}
- path: dsn
  template: |
    postgres://{{ db.user }}:{{ db.password }}@db
  secrets: {db: prod/shop/db}
",
    );
    let Published::Mounted(versions) = driver.publish(&pod, &class).unwrap() else { panic!() };
    assert!(versions["pw"].starts_with("1-"), "{versions:?}");
    let target = driver.target(&pod);
    assert_eq!(fs::read(target.join("tls/key")).unwrap(), b"\x00\xff key");
    let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("tls/key"), mode("pw")), (0o400, 0o644));
    assert_eq!((content(&target, "pw"), content(&target, "db/user")), ("p$1".into(), "u".into()));
    assert_eq!(content(&target, "dsn"), "postgres://u:p$1@db\n");
    assert!(!target.join("gone").exists());

    // The kubelet asks again, all the time and several times at once: nobody bothers the server.
    let (opened, read) = (site.audited("sts:OpenSession"), site.audited("secrets:GetSecret"));
    for _ in 0..20 {
        assert!(
            matches!(driver.publish(&pod, &class), Ok(Published::Mounted(same)) if same == versions)
        );
    }
    assert!(driver.burst(&pod, &class, 3).iter().all(Result::is_ok));
    assert_eq!(driver.calls, 24);
    assert_eq!(
        (opened, read),
        (site.audited("sts:OpenSession"), site.audited("secrets:GetSecret"))
    );
    // The first three calls of another pod, all at once, read everything once.
    let other = site.pod("pod-2");
    driver.tokens_in_secrets = true;
    assert!(driver.burst(&other, &class, 3).iter().all(Result::is_ok));
    assert_eq!(site.audited("sts:OpenSession"), opened + 1);
    assert_eq!(site.audited("secrets:GetSecret"), 2 * read);
    drop(provider);
}

#[test]
fn refusals_are_final_and_say_what_for_whom_why_and_what_to_do() {
    let site = Site::found();
    site.put("prod/shop/db", b"hunter2-db");
    site.put("prod/other/db", b"hunter2-other");
    site.put("prod/shop/big", &[b'x'; 60_000]);
    let provider = site.provider(&["--role", "shop"]);
    let mut driver = site.driver();
    let own = site.pod("pod-1");
    let many: String =
        (0..80).map(|n| format!("- {{secret: prod/shop/big, path: f{n}}}\n")).collect();
    let db = "- {secret: prod/shop/db}";
    let mut no_token = own.clone();
    no_token.tokens.clear();
    let mut of_another = site.pod_of("pod-3", "lastkey", "web");
    of_another.account = "api".to_owned();
    let (denied, invalid) = (Code::PermissionDenied, Code::InvalidArgument);
    let role = class_of("lastkey", &[("role", "nobody"), ("objects", db)]);
    for (pod, class, code, words) in [
        (
            &own,
            class("- {secret: prod/other/db}"),
            denied,
            &["prod/other/db", "shop/api", "can"][..],
        ),
        (&own, class("- {secret: prod/shop/none}"), denied, &["prod/shop/none"]),
        (&own, role, denied, &["nobody", "shop/api", "role show"]),
        (&of_another, class(db), denied, &["shop", "audit search"]),
        (&no_token, class(db), Code::FailedPrecondition, &["tokenRequests", "lastkey"]),
        (&own, class("- {secret: prod/shop/db, field: x}"), invalid, &["prod/shop/db", "JSON"]),
        (&own, class("- {secret: prod/shop/db, stage: green}"), Code::NotFound, &["prod/shop/db"]),
        (&own, class("- {secret: prod/shop/db, path: ../../etc/x}"), invalid, &["path"]),
        (&own, class(&format!("{db}\n{db}")), invalid, &["both want the file db"]),
        (&own, class(&many), invalid, &["prod/shop/big", "Mount less"]),
        (&own, class_of("lastkey", &[]), invalid, &["`objects`"]),
    ] {
        let refused = driver.publish(pod, &class).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        for word in words {
            assert!(refused.message().contains(word), "{word}: {refused}");
        }
        assert!(!refused.message().contains("hunter2"), "{refused}");
        // A final code: the kubelet removed the folder, and no pod starts with an empty volume.
        assert!(!driver.target(pod).exists());
    }
    assert!(matches!(driver.publish(&own, &class(db)), Ok(Published::Mounted(_))));
    let said = provider.complaint();
    let token = &own.tokens[0].1;
    assert!(!said.contains(token) && !said.contains("hunter2"), "{said}");
}

/// What a pod, a class or a Secret for the driver may have in it, whatever becomes of the request.
#[test]
fn tokens_secrets_and_unheeded_parameters_are_in_no_log_and_no_message() {
    let site = Site::found();
    site.put("prod/shop/db", b"marked-value");
    site.put_fields("prod/shop/fields", &[("marked", "marked-field")]);
    let provider = site.provider(&["--personality", "lastkey,alibabacloud,aws,vault"]);
    let driver = site.driver();
    let mut said = String::new();
    for (number, (name, objects)) in [
        ("lastkey", "- {secret: prod/shop/db}"),
        ("lastkey", "- {secret: prod/shop/db, query: a}"),
        ("lastkey", "- {secret: prod/shop/db, stage: green}"),
        ("lastkey", "- {path: t, template: '{{ x.y }}', secrets: {x: prod/shop/fields}}"),
        ("lastkey", "- {secret: prod/other/db}"),
        ("lastkey", "- {secret: ["),
        ("alibabacloud", "- {objectName: prod/shop/db}"),
        ("aws", "- {objectName: prod/shop/db, objectVersion: x}"),
        ("vault", "- {objectName: a, secretPath: prod/data/shop/db, method: PUT}"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut pod = site.pod(&format!("pod-{number}"));
        let unheeded = ["vaultToken", "kmsEndpoint", "nobodyKnows"];
        pod.volume_attributes =
            unheeded.map(|name| (name.to_owned(), "marked-attribute".to_owned())).into();
        let parameters = [("role", "shop"), ("roleName", "shop"), ("objects", objects)];
        let mut request = driver.request(&pod, &class_of(name, &parameters), &driver.target(&pod));
        request.secrets = serde_json::json!({ "password": "marked-secret" }).to_string();
        let cut = request.attributes.len() - 1;
        let broken = [cut, cut / 2].map(|len| {
            let mut broken = request.clone();
            broken.attributes.truncate(len);
            broken
        });
        for request in broken.into_iter().chain([request]) {
            if let Err(refused) = driver.send(name, request) {
                said.push_str(refused.message());
            }
        }
        // The middle of a token is its claims.
        let token = &pod.tokens[0].1;
        said.push_str(&provider.complaint());
        assert!(token.split('.').all(|part| !said.contains(part)), "{said}");
    }
    assert!(said.contains("a volume was made") && said.contains("a volume was refused"), "{said}");
    assert!(said.contains("not heeded") && !said.contains("marked-"), "{said}");
}

#[test]
fn longest_volume_is_what_the_operator_says_and_a_large_one_is_told_of_once() {
    let site = Site::found();
    site.put("prod/shop/big", &[b'x'; 60_000]);
    let provider = site.provider(&["--max-volume-bytes", "2097152"]);
    let mut driver = site.driver();
    let of = |many: usize| {
        let objects = (0..many).map(|n| format!("- {{secret: prod/shop/big, path: f{n}}}\n"));
        class(&objects.collect::<String>())
    };
    let pod = site.pod("pod-1");
    assert!(matches!(driver.publish(&pod, &of(17)), Ok(Published::Mounted(_))));
    assert!(!provider.complaint().contains("1 MiB"), "{}", provider.complaint());
    let large = site.pod("pod-2");
    for _ in 0..3 {
        assert!(matches!(driver.publish(&large, &of(30)), Ok(Published::Mounted(_))));
    }
    let told = provider.logs("more than 1 MiB");
    for words in ["class=\"class\"", "namespace=\"shop\"", "bytes=18"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(provider.complaint().matches("more than 1 MiB").count(), 1);
    let refused = driver.publish(&site.pod("pod-3"), &of(34)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("--max-volume-bytes"), "{refused}");
    let refused = run(&mut site.provider_command(&["--max-volume-bytes", "100"]), b"");
    assert!(refused.stderr.contains("262144 to 16777216"), "{}", refused.stderr);
}

#[test]
fn volume_is_as_long_as_driver_and_provider_are_told_to_take() {
    let site = Site::found();
    site.put("prod/shop/big", &[b'x'; 60_000]);
    let _provider = site.provider(&["--max-volume-bytes", "8388608"]);
    let mut driver = site.driver();
    let objects: String =
        (0..80).map(|n| format!("- {{secret: prod/shop/big, path: f{n}}}\n")).collect();
    driver.max_answer = 8 << 20;
    assert!(matches!(
        driver.publish(&site.pod("pod-1"), &class(&objects)),
        Ok(Published::Mounted(_))
    ));
}

#[test]
fn pod_cannot_send_the_provider_elsewhere_nor_read_by_the_class_of_another() {
    let site = Site::found();
    site.put("prod/shop/db", b"ours");
    site.put("prod/other/db", b"theirs");
    let provider = site.provider(&[]);
    let mut driver = site.driver();
    let mut pod = site.pod("pod-1");
    let evil =
        [("address", "https://127.0.0.1:1"), ("caCert", "/etc/shadow"), ("skipVerify", "true")];
    pod.volume_attributes = evil.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert!(matches!(
        driver.publish(&pod, &class("- {secret: prod/shop/db}")),
        Ok(Published::Mounted(_))
    ));
    assert_eq!(content(&driver.target(&pod), "db"), "ours");
    provider.logs("parameters of the class are not heeded");
    let objects = ("objects".to_owned(), "- {secret: prod/other/db}".to_owned());
    pod.volume_attributes = vec![objects];
    // It has a volume already, so the driver tells nobody; but the files stay.
    let masked = driver.publish(&pod, &class("- {secret: prod/shop/db}")).unwrap();
    let Published::Masked(status) = masked else { panic!("{masked:?}") };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(content(&driver.target(&pod), "db"), "ours");
}

/// The node's own server is not there, so whatever is mounted came from the other address.
#[test]
fn class_names_another_server_where_the_operator_allowed_it_and_nowhere_else() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    let (allowed, kubelet) = (site.server.addr.clone(), site.path("kubelet"));
    let provider = site.provider(&[
        "--addr",
        "https://127.0.0.1:1",
        "--allow-address",
        &allowed,
        "--personality",
        "lastkey,vault",
        "--kubelet-dir",
        kubelet.to_str().unwrap(),
    ]);
    let mut driver = site.driver();
    let objects = "- {secret: prod/shop/db}";
    let of = |address| {
        class_of("lastkey", &[("role", "shop"), ("objects", objects), ("address", address)])
    };
    let pod = site.pod("pod-1");
    let longer = format!("{allowed}0");
    for elsewhere in ["https://127.0.0.1:2", &longer, ""] {
        let refused = driver.publish(&pod, &of(elsewhere)).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("does not answer"), "{refused}");
    }
    assert!(matches!(driver.publish(&pod, &of(&allowed)), Ok(Published::Mounted(_))));
    let target = driver.target(&pod);
    assert_eq!(content(&target, "db"), "one");
    // It tells of changes as well.
    site.put("prod/shop/db", b"two");
    until("new bytes", || fs::read(target.join("db")).is_ok_and(|bytes| bytes == b"two"));
    site.put_fields("prod/shop/fields", &[("user", "u")]);
    let object = "- {objectName: a, secretPath: prod/data/shop/fields, secretKey: user}";
    let parameters = [("roleName", "shop"), ("vaultAddress", &*allowed), ("objects", object)];
    let of_vault = class_of("vault", &parameters);
    let other = site.pod("pod-2");
    let published = driver.publish(&other, &of_vault);
    assert!(matches!(published, Ok(Published::Mounted(_))), "{published:?}");
    // The pod has its class from the node's own server again, which is away: its files stay.
    let masked = driver.publish(&pod, &class(objects)).unwrap();
    assert!(matches!(masked, Published::Masked(_)), "{masked:?}");
    assert_eq!(content(&target, "db"), "two");
    drop(provider);
}

#[test]
fn token_of_no_pod_is_for_roles_that_say_so_and_nobody_is_told_of_what_it_gave() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    let _provider = site.provider(&["--kubelet-dir", site.path("kubelet").to_str().unwrap()]);
    let driver = site.driver();
    let account = site.account_without_pod("controller");
    let of = |role| class_of("lastkey", &[("role", role), ("objects", "- {secret: prod/shop/db}")]);
    let ask = |role| driver.send("lastkey", driver.request_of_sync_controller(&account, &of(role)));
    let refused = ask("shop").unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    for words in ["shop/api", "bound to no pod", "--allow-without-pod", "role show shop"] {
        assert!(refused.message().contains(words), "{words}: {refused}");
    }
    site.write(
        "sync",
        "permit(principal in Role::\"sync\", action == Action::\"secrets:GetSecret\", \
         resource in SecretPath::\"prod/shop\");",
    );
    let made =
        "role create sync --cluster here --namespace shop --service-account api --policy sync";
    site.ok(made);
    ask("sync").unwrap_err();
    let refused = site.run(&format!("{made} --allow-without-pod --by-node-agent"));
    assert!(refused.stderr.contains("--by-node-agent"), "{}", refused.stderr);
    site.ok(&format!("{made} --allow-without-pod"));
    for shown in ["role show sync", "role list"] {
        assert!(site.ok(shown).contains("also without a pod"), "{}", site.ok(shown));
    }
    assert!(!site.ok("role show shop").contains("without a pod"));
    assert_eq!(ask("sync").unwrap()["db"].1, b"one");
    // It is on record as what it is, by a node that says of no pod that it holds anything.
    let records = audit_records(&site.installation.data, "--action sts:OpenSession");
    let reasons: Vec<_> = records.iter().map(|one| text(&one["reason"])).collect();
    let newest = "bound to no pod; liveness was not checked: the cluster is not asked";
    assert_eq!(reasons[..3], [newest, "pod_missing", "pod_missing"], "the newest first");
    let reply = site.run("secret consumers prod/shop/db --output json").json();
    assert_eq!(reply["consumers"], serde_json::json!([]));
    assert!(!Path::new("/mnt/secrets-store").exists());
}

#[test]
fn old_driver_is_told_of_in_the_log() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    let provider = site.provider(&[]);
    let mut driver = site.driver();
    let kept = driver.call_by_path("lastkey", "/v1alpha1.CSIDriverProvider/Mount");
    provider.logs("Secrets Store CSI driver before 1.5.5");
    drop(kept);
    let published = driver.publish(&site.pod("pod-1"), &class("- {secret: prod/shop/db}"));
    assert!(matches!(published, Ok(Published::Mounted(_))), "{published:?}");
}

#[test]
fn volumes_stay_while_the_server_is_away_and_new_pods_are_told_to_wait() {
    let mut site = Site::found();
    site.put("prod/shop/db", b"v1");
    let provider = site.provider(&[]);
    let mut driver = site.driver();
    let (old, new) = (site.pod("pod-1"), site.pod("pod-2"));
    let class = class("- {secret: prod/shop/db}");
    driver.publish(&old, &class).unwrap();
    site.server.process.kill();
    // The kubelet has a new token: it cannot be shown to anybody, and the volume stays.
    let mut renewed = old.clone();
    renewed.tokens = site.pod("pod-1").tokens;
    assert!(matches!(driver.publish(&renewed, &class), Ok(Published::Mounted(_))));
    let refused = driver.publish(&new, &class).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("does not answer"), "{refused}");
    // The log, to which the people of the pod are sent, says why.
    provider.logs("Connection refused");
    site.serve_again();
    until("the pod starts", || matches!(driver.publish(&new, &class), Ok(Published::Mounted(_))));
    assert_eq!(content(&driver.target(&new), "db"), "v1");
}

#[test]
fn second_provider_and_missing_folder_are_refused_at_the_start() {
    let site = Site::found();
    let _first = site.provider(&[]);
    let second = run(&mut site.provider_command(&[]), b"");
    assert!(second.stderr.contains("another process serves"), "{}", second.stderr);
    let elsewhere = run(&mut site.provider_command(&["--personality", "aws,nobody"]), b"");
    assert!(elsewhere.stderr.contains("no such personality: nobody"), "{}", elsewhere.stderr);
    let mut lost = site.server.client(["secrets-provider", "--provider-dir", "/nonexistent"]);
    let lost = run(&mut lost, b"");
    assert!(lost.stderr.contains("is the Secrets Store CSI driver installed"), "{}", lost.stderr);
}

/// Made here, read by OpenSSL.
#[test]
fn key_store_is_one_that_openssl_opens_and_stays_the_same_bytes() {
    let site = Site::found();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["shop.example".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let (key, certificate) = (key.serialize_pem(), certificate.pem());
    let fields = [
        ("tls.key", key.as_str()),
        ("tls.crt", &certificate),
        ("ca.crt", &certificate),
        ("password", "hunter2"),
    ];
    site.put_fields("prod/shop/tls", &fields);
    let _provider = site.provider(&["--audience", "lastkey", "--audience", "vault"]);
    let mut driver = site.driver();
    let class = class("- {secret: prod/shop/tls, format: pkcs12, path: store.p12}");
    let mut store = |pod: &Pod| {
        driver.publish(pod, &class).unwrap();
        let file = driver.target(pod).join("store.p12");
        (fs::read(&file).unwrap(), file)
    };
    let mut pod = site.pod("pod-1");
    let (bytes, file) = store(&pod);
    let mut openssl = crate::process::command("openssl");
    openssl.args(["pkcs12", "-passin", "pass:hunter2", "-nodes", "-in"]).arg(file);
    let said = run(&mut openssl, b"").ok();
    let begins = "-----BEGIN ";
    assert_eq!(said.matches(&format!("{begins}CERTIFICATE")).count(), 2, "{said}");
    let inner = |pem: &str| pem.lines().nth(1).unwrap().to_owned();
    for pem in [&key, &certificate] {
        assert!(said.contains(&inner(pem)), "{said}");
    }
    assert!(said.contains("friendlyName: tls"), "{said}");
    // Another token of the pod: everything is read anew, and the file stays as it is.
    let opened = site.audited("sts:OpenSession");
    pod.tokens = site.pod_of("pod-1", "vault", "api").tokens;
    assert_eq!(store(&pod).0, bytes);
    assert_eq!(site.audited("sts:OpenSession"), opened + 1);
}

#[test]
fn provider_answers_probes_and_counts_without_naming_anybody() {
    let site = Site::found();
    site.put("prod/shop/db", b"value");
    let provider = site.provider(&["--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0"]);
    let mut driver = site.driver();
    let class = class("- {secret: prod/shop/db}");
    let pod = site.pod("pod-1");
    for _ in 0..3 {
        driver.publish(&pod, &class).unwrap();
    }
    driver.publish(&pod, &class_of("lastkey", &[])).unwrap();
    for service in ["", "v1alpha1.CSIDriverProvider"] {
        assert_eq!(driver.health("lastkey", service).unwrap(), 1);
    }
    assert_eq!(driver.health("lastkey", "another").unwrap_err().code(), Code::NotFound);
    let said = provider.said();
    let addr = said.lines().find_map(|line| line.split_once("metrics on ")).unwrap().1;
    let (addr, health) = addr.split_once("; health on ").unwrap();
    let mut http = Http::tcp(addr).unwrap();
    let text = http.answer("GET", "/metrics", "").text();
    for line in [
        "lastkey_secrets_provider_mounts_total{personality=\"lastkey\",code=\"OK\"} 3",
        "lastkey_secrets_provider_mounts_total{personality=\"lastkey\",code=\"INVALID_ARGUMENT\"} 1",
        "lastkey_secrets_provider_from_memory_total 2",
        "lastkey_secrets_provider_volumes 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
    }
    assert!(!text.contains("pod-1") && !text.contains("prod/shop"), "{text}");
    assert_eq!(Http::tcp(addr).unwrap().answer("GET", "/healthz", "").status, 200);
    assert_eq!(Http::tcp(addr).unwrap().answer("GET", "/readyz", "").status, 200);
    // What is open to others says nothing but that.
    for (path, status, word) in
        [("/healthz", 200, "ok\n"), ("/readyz", 200, "ok\n"), ("/metrics", 404, "not found\n")]
    {
        let answer = Http::tcp(health).unwrap().answer("GET", path, "");
        assert_eq!((answer.status, answer.text()), (status, word.to_owned()), "{path}");
    }
    let refused = run(&mut site.provider_command(&["--metrics", "0.0.0.0:0"]), b"");
    assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
}
