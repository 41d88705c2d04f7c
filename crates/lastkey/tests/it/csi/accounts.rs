//! Accounts of a database in volumes: one for each pod, the same however often it is asked for, and
//! gone when the pod is.

use crate::csi::driver::{Pod, Published};
use crate::csi::site::{Site, class, class_of, content};
use crate::fake_cluster::FakeCluster;
use crate::leases::prepare;
use crate::postgres::Postgres;
use crate::process::until;

/// A site whose cluster has two pods and is asked about them.
fn site() -> (Site, FakeCluster) {
    let mut started = None;
    let site = Site::found_with(|folder, jwks| {
        let cluster = FakeCluster::start(jwks, &["pod-1", "pod-2"]);
        let lines = cluster.config_as("here", folder, "");
        started = Some(cluster);
        lines
    });
    let cluster = started.unwrap();
    cluster.wait_for("/api/v1/pods?watch=1", 1);
    (site, cluster)
}

/// The database `shop` with the role `shop-app`, for the pods of the site.
fn make_role(site: &Site, postgres: &Postgres) {
    site.write("first", "first\n");
    site.ok(&format!(
        "database add shop --address {} --user lastkey --password-file first",
        postgres.address()
    ));
    site.ok("database role create shop-app --database shop --member-of shop\"rw --ttl 5m");
    let action = "Action::\"secrets:GetDatabaseCredentials\"";
    site.write(
        "accounts",
        &format!(
            "permit(principal in Role::\"shop\", action == {action}, \
             resource == DatabaseRole::\"shop-app\");"
        ),
    );
    site.ok("policy put accounts accounts");
}

#[test]
fn pod_has_an_account_of_its_own_as_long_as_it_lives() {
    let Some(postgres) = Postgres::start() else { return };
    prepare(&postgres);
    let (site, cluster) = site();
    make_role(&site, &postgres);
    site.put("prod/shop/host", b"db.example");
    let personalities = ["--personality", "lastkey,vault"];
    let mut provider = site.provider(&personalities);
    let mut driver = site.driver();
    let (pod, other) = (site.pod("pod-1"), site.pod("pod-2"));
    let class = class(
        "\
- {database: shop-app, field: username, path: user}
- {database: shop-app, field: password, path: password, mode: '0400'}
- path: url
  template: 'postgresql://{{ db.username }}:{{ db.password }}@{{ host }}/shop'
  secrets: {host: prod/shop/host}
  databases: {db: shop-app}
",
    );
    let mut mount = |pod: &Pod| {
        let published = driver.publish(pod, &class).unwrap();
        assert!(matches!(published, Published::Mounted(_)), "{published:?}");
        let target = driver.target(pod);
        (content(&target, "user"), content(&target, "password"), content(&target, "url"))
    };
    let (user, password, url) = mount(&pod);
    assert!(postgres.lets_in(&user, &password));
    assert_eq!(url, format!("postgresql://{user}:{password}@db.example/shop"));
    let asked = site.audited("secrets:GetDatabaseCredentials");
    // The kubelet asks again and again: that costs nothing and makes nothing.
    for _ in 0..5 {
        assert_eq!(mount(&pod).0, user);
    }
    assert_eq!(site.audited("secrets:GetDatabaseCredentials"), asked);
    let theirs = mount(&other);
    assert_ne!(theirs.0, user);
    // Another provider knows nothing, and is given the same.
    provider.kill();
    let _provider = site.provider(&personalities);
    assert_eq!(mount(&pod), (user.clone(), password.clone(), url));
    // A class of Vault's documentation, in another volume of the same pod: the same account.
    let objects = "- {objectName: user, secretPath: database/creds/shop-app, secretKey: username}";
    let of_vault = class_of("vault", &[("roleName", "shop"), ("objects", objects)]);
    driver.publish(&other, &of_vault).unwrap();
    assert_eq!(content(&driver.target(&other), "user"), theirs.0);
    let listed = site.ok("database lease list shop-app");
    assert_eq!(listed.matches("k8s:here/shop/api").count(), 2, "{listed}");

    cluster.delete_pod("pod-1");
    until("the account of the pod is dropped", || !postgres.lets_in(&user, &password));
    until("the lease is gone", || !site.ok("database lease list shop-app").contains(&user));
    assert!(postgres.lets_in(&theirs.0, &theirs.1), "the other pod lives");
    assert!(!postgres.log().contains(&password), "the database logged a password");
}
