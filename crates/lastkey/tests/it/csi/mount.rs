//! Volumes of pods: what is in them, what they cost, and what a person reads when there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tonic::Code;

use crate::csi::driver::{Pod, Published};
use crate::csi::site::{Site, class, class_of, content};
use crate::http::Http;
use crate::process::{run, until};

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

#[test]
fn volumes_stay_while_the_server_is_away_and_new_pods_are_told_to_wait() {
    let mut site = Site::found();
    site.put("prod/shop/db", b"v1");
    let _provider = site.provider(&[]);
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

#[test]
fn classes_written_for_other_providers_mount_as_they_are() {
    let site = Site::found();
    let secrets = [("user", "u"), ("password", "p")];
    site.put_fields("prod/shop/secret/db-pass", &secrets);
    site.write("policy", "permit(principal in Role::\"all\", action, resource is Secret);");
    site.ok(
        "role create all --cluster here --namespace shop --service-account api --by-node-agent \
             --policy policy",
    );
    for name in ["secret/db-pass", "MySecret", "test-kms"] {
        site.put_fields(name, &secrets);
    }
    let provider = site.provider(&["--personality", "vault,aws,alibabacloud", "--role", "all"]);
    let mut driver = site.driver();
    let vault = class_of(
        "vault",
        &[
            ("vaultAddress", "http://vault.default:8200"),
            ("roleName", "all"),
            (
                "objects",
                "- objectName: \"db-password\"\n  secretPath: \"secret/data/db-pass\"\n  secretKey: \"password\"\n",
            ),
        ],
    );
    let aws = class_of(
        "aws",
        &[(
            "objects",
            "- objectName: \"MySecret\"\n  objectType: \"secretsmanager\"\n  jmesPath:\n    - path: user\n      objectAlias: dbuser\n",
        )],
    );
    let alibaba = class_of(
        "alibabacloud",
        &[(
            "objects",
            "- objectName: \"test-kms\"\n  objectType: \"kms\"\n  objectVersionLabel: \"ACSCurrent\"\n  jmesPath:\n    - path: \"password\"\n      objectAlias: \"dbpassword\"\n",
        )],
    );
    let whole = r#"{"password":"p","user":"u"}"#;
    for (class, audience, files) in [
        (vault, "vault", &[("db-password", "p")][..]),
        (aws, "sts.amazonaws.com", &[("MySecret", whole), ("dbuser", "u")]),
        (alibaba, "sts.aliyuncs.com", &[("test-kms", whole), ("dbpassword", "p")]),
    ] {
        let pod = site.pod_of(&format!("pod-{}", audience.replace('.', "-")), audience, "api");
        let published = driver.publish(&pod, &class).unwrap();
        assert!(matches!(published, Published::Mounted(_)), "{published:?}");
        for (name, text) in files {
            assert_eq!(content(&driver.target(&pod), name), *text);
        }
    }
    drop(provider);
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
