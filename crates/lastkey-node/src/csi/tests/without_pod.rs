//! Volumes whose tokens are bound to no pod.
//!
//! Room      `node`, tests.

use super::*;

/// As the controller for Kubernetes Secrets asks: in the name of its own pod, by the token of an account
/// that is bound to none, and without a class.
fn request_without_pod(account: &str, object: &str) -> MountRequest {
    let mut asked = request("controller", &token_without_pod(account));
    let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
    attributes.as_object_mut().unwrap().remove("secretProviderClass");
    attributes["objects"] = object.into();
    asked.attributes = attributes.to_string();
    asked
}

#[tokio::test(start_paused = true)]
async fn who_has_no_pod_is_answered_and_nobody_is_told_of_it() {
    let (service, provider) = provider(None);
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    let asked = request_without_pod("s", "- {secret: a/b}");
    assert_eq!(mounted(&provider, &asked).await, "value 1");
    let calls = service.calls();
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(59)).await;
    // Nobody tells of changes, so it is read again after a minute and not before.
    assert_eq!(mounted(&provider, &asked).await, "value 1");
    assert_eq!(service.calls(), calls);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mounted(&provider, &asked).await, "value 2");
    tokio::time::sleep(Duration::from_secs(180)).await;
    let questions = service.asked.lock().unwrap().clone();
    let is_about_nobody = |one: &Question| {
        one.seen.is_empty() && one.holders.as_ref().is_none_or(std::vec::Vec::is_empty)
    };
    assert!(questions.iter().all(is_about_nobody), "{questions:?}");
    assert_eq!(provider.slots().len(), 1);
    // It is forgotten, whether or not anything else happens.
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    assert!(provider.slots().is_empty());
    assert!(!watching.is_finished());
    watching.abort();
}

#[tokio::test]
async fn classes_that_a_controller_does_not_name_are_kept_side_by_side() {
    let (service, provider) = provider(None);
    let both = ["- {secret: a/b}", "- {secret: a/c}"].map(|one| request_without_pod("s", one));
    for asked in &both {
        mounted(&provider, asked).await;
    }
    let calls = service.calls();
    for asked in &both {
        mounted(&provider, asked).await;
    }
    assert_eq!((service.calls(), provider.slots().len()), (calls, 2));
}

#[tokio::test]
async fn without_a_pod_there_is_no_account_of_a_database_and_none_of_another_service_account() {
    let (service, provider) = provider(None);
    for (asked, words) in [
        (
            request_without_pod("s", "- {database: shop-app, path: db}"),
            ["object shop-app", "bound to none"],
        ),
        (
            request_without_pod(
                "s",
                "- {path: dsn, template: '{{ db.username }}', databases: {db: shop-app}}",
            ),
            ["object dsn", "by the role shop-app"],
        ),
        (
            request_without_pod("somebody-else", "- {secret: a/b}"),
            ["service account n/s", "another service account"],
        ),
    ] {
        let refused = provider.mount(Personality::Lastkey, &asked).await.unwrap_err().to_string();
        for word in words {
            assert!(refused.contains(word), "{word}: {refused}");
        }
    }
    assert_eq!(service.calls(), 0);
}
