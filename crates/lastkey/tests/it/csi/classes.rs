//! Classes as the documentation of other providers has them, whole, and files that come of them.

use tonic::Code;

use crate::csi::driver::{Class, Driver, Published};
use crate::csi::site::{Site, content};

/// Of Alibaba Cloud: the example of its provider, that of pods with roles of their own, parts of a
/// value, and two stores that have a secret of one name.
const ALIBABA_CLOUD: [&str; 4] = [
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: test-secrets
  namespace: kube-system
spec:
  provider: alibabacloud
  parameters:
    objects: |
      - objectName: "test-kms"
        objectType: "kms"
      - objectName: "test-oos"
        objectType: "oos"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: pod-sa-kms-secrets
  namespace: default
spec:
  provider: alibabacloud
  parameters:
    region: "cn-hangzhou"
    usePodServiceAccountToken: "true"
    objects: |
      - objectName: "test-kms"
        objectType: "kms"
        objectAlias: "test-kms"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: parts
spec:
  provider: alibabacloud
  parameters:
    objects: |
        - objectName: "test"
          jmesPath:
              - path: "username"
                objectAlias: "MySecretUsername"
              - path: "password"
                objectAlias: "MySecretPassword"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: both-stores
spec:
  provider: alibabacloud
  parameters:
    objects: |
        - objectName: "MySecret"
          objectType: "kms"
          objectAlias: "MySecretKMS"
        - objectName: "MySecret"
          objectType: "oos"
          objectAlias: "MySecretOOS"
"#,
];

/// Of AWS: the example of its provider, the one for pod identities, parts of a value, and another
/// region to fall back to.
const AWS: [&str; 4] = [
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: nginx-irsa-deployment-aws-secrets
spec:
  provider: aws
  parameters:
    objects: |
        - objectName: "MySecret"
          objectType: "secretsmanager"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: nginx-pod-identity-deployment-aws-secrets
spec:
  provider: aws
  parameters:
    objects: |
        - objectName: "MySecret"
          objectType: "secretsmanager"
    usePodIdentity: "true"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: parts
spec:
  provider: aws
  parameters:
    objects: |
        - objectName: "MySecret"
          objectType: "secretsmanager"
          jmesPath:
              - path: "username"
                objectAlias: "MySecretUsername"
              - path: "password"
                objectAlias: "MySecretPassword"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: failover
spec:
  provider: aws
  parameters:
    region: us-east-1
    failoverRegion: us-east-2
    objects: |
      - objectName: "arn:aws:secretsmanager:us-east-1:123456789012:secret:PrimarySecret-12345"
        failoverObject:
          objectName: "arn:aws:secretsmanager:us-east-2:123456789012:secret:FailoverSecret-12345"
        objectAlias: testArn
"#,
];

/// Of Vault: the tutorial's, and one with all there is about its server, certificates and logging
/// in. That for accounts of a database is in accounts.rs.
const VAULT: [&str; 2] = [
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: vault-database
spec:
  provider: vault
  parameters:
    vaultAddress: "http://vault.default:8200"
    roleName: "database"
    objects: |
      - objectName: "db-password"
        secretPath: "secret/data/db-pass"
        secretKey: "password"
"#,
    r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: vault-all
spec:
  provider: vault
  parameters:
    roleName: "database"
    audience: "vault"
    vaultAddress: https://vault:8200
    vaultCACertPath: /mnt/tls/ca.crt
    vaultTLSClientCertPath: /mnt/tls/client.crt
    vaultTLSClientKeyPath: /mnt/tls/client.key
    vaultSkipTLSVerify: "true"
    vaultKubernetesMountPath: "kubernetes"
    objects: |
      - objectName: "secret-1"
        secretPath: "secret/data/kv1?version=1"
        secretKey: "bar1"
"#,
];

/// One of Vault that makes a certificate at each read.
const VAULT_PKI: &str = r#"
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: vault-pki
spec:
  provider: vault
  parameters:
    roleName: "database"
    objects: |
      - objectName: "certs"
        secretPath: "pki/issue/example-dot-com"
        secretArgs:
          common_name: "test.example.com"
          ttl: "24h"
        method: "PUT"
"#;

const MY_SECRET: &str = r#"{"username":"memeuser", "password":"swordfish"}"#;

/// The secrets of those classes, and a role that reads everything, under two names.
fn site() -> Site {
    let site = Site::found();
    for role in ["all", "database"] {
        site.write(
            role,
            &format!("permit(principal in Role::\"{role}\", action, resource is Secret);"),
        );
        site.ok(&format!(
            "role create {role} --cluster here --namespace shop --service-account api \
             --by-node-agent --policy {role}"
        ));
    }
    for (name, value) in [
        ("test-kms", "1234"),
        ("test-oos", "SecretParameter"),
        ("MySecret", MY_SECRET),
        ("PrimarySecret-12345", "primary"),
    ] {
        site.put(name, value.as_bytes());
    }
    site.put_fields("test", &[("username", "testuser"), ("password", "testpassword")]);
    site.put_fields("secret/db-pass", &[("password", "db-secret-password")]);
    site.put_fields("secret/kv1", &[("bar1", "foo1")]);
    site.put_fields("secret/kv1", &[("bar1", "foo2")]);
    site
}

/// Mounts classes into a pod each, whose tokens have the audience that those providers ask for.
#[track_caller]
fn mount(site: &Site, driver: &mut Driver, audience: &str, classes: &[(&str, &[(&str, &str)])]) {
    for (number, (manifest, files)) in classes.iter().enumerate() {
        let class = Class::of_manifest(manifest);
        let pod = site.pod_of(&format!("{}-{number}", class.provider), audience, "api");
        let published = driver.publish(&pod, &class);
        assert!(matches!(published, Ok(Published::Mounted(_))), "{manifest}: {published:?}");
        for (name, text) in *files {
            assert_eq!(content(&driver.target(&pod), name), *text, "{manifest}");
        }
    }
}

#[test]
fn classes_of_other_providers_mount_as_their_documentation_has_them() {
    let site = site();
    let _provider = site.provider(&["--personality", "vault,aws,alibabacloud", "--role", "all"]);
    let mut driver = site.driver();
    let whole = r#"{"password":"testpassword","username":"testuser"}"#;
    let alibaba: [&[_]; 4] = [
        &[("test-kms", "1234"), ("test-oos", "SecretParameter")],
        &[("test-kms", "1234")],
        &[("test", whole), ("MySecretUsername", "testuser"), ("MySecretPassword", "testpassword")],
        &[("MySecretKMS", MY_SECRET), ("MySecretOOS", MY_SECRET)],
    ];
    let aws: [&[_]; 4] = [
        &[("MySecret", MY_SECRET)],
        &[("MySecret", MY_SECRET)],
        &[
            ("MySecret", MY_SECRET),
            ("MySecretUsername", "memeuser"),
            ("MySecretPassword", "swordfish"),
        ],
        &[("testArn", "primary")],
    ];
    let vault: [&[_]; 2] = [&[("db-password", "db-secret-password")], &[("secret-1", "foo1")]];
    for (audience, manifests, files) in [
        ("sts.aliyuncs.com", &ALIBABA_CLOUD[..], &alibaba[..]),
        ("sts.amazonaws.com", &AWS, &aws),
        ("vault", &VAULT, &vault),
    ] {
        let classes: Vec<_> = manifests.iter().copied().zip(files.iter().copied()).collect();
        mount(&site, &mut driver, audience, &classes);
    }
    let pki = Class::of_manifest(VAULT_PKI);
    let refused = driver.publish(&site.pod_of("pki", "vault", "api"), &pki).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("objects[0].method"), "{refused}");
}
