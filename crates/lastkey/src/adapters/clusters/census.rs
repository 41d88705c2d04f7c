//! Who is there in a cluster, by UID: pods, or service accounts.
//!
//! Room      the binary.
//! Source    Kubernetes' own check of bound tokens: good for 60 seconds after the end that is
//!           written in the object.
//! Holds     who was seen to go is gone for as long as a session can last. Who is not in a list
//!           that is newer than his session is gone. Who is only not heard of yet is not.

use std::collections::HashMap;

use lastkey_core::access::MAX_SESSION_SECS;
use lastkey_core::outside::Standing;
use lastkey_core::time::Timestamp;

/// How long a token is good after the end that is written in its pod, in seconds.
const AFTER_END: u64 = 60;
/// How much later than a session its pod may be heard of, in seconds: clocks and the way of a
/// watch.
const LAG: u64 = 10;
/// How long what was heard last counts, in seconds.
const KEPT: u64 = 900;

/// Who is there.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Those who are there, and when they end if that is written.
    there: HashMap<Box<str>, Option<Timestamp>>,
    /// Those who were seen to go, and when.
    gone: HashMap<Box<str>, Timestamp>,
    /// When the cluster spoke last, so that this was the whole truth; `None` before the first list.
    heard: Option<Timestamp>,
    /// Whether the watch is on. One that is half dead is on too, so absence proves nothing by it.
    is_open: bool,
}

impl Census {
    /// A list, begun at this time.
    pub(super) fn fill(
        &mut self,
        found: impl IntoIterator<Item = (String, Option<Timestamp>)>,
        asked_at: Timestamp,
    ) {
        let found = found.into_iter().map(|(uid, ends)| (uid.into_boxed_str(), ends));
        let before = std::mem::replace(&mut self.there, found.collect());
        for (uid, _) in before {
            if !self.there.contains_key(&uid) {
                self.gone.insert(uid, asked_at);
            }
        }
        self.heard = Some(asked_at);
        self.prune(asked_at);
    }

    /// The watch is on. It may follow one watch after the other for weeks without a list.
    pub(super) fn open(&mut self, now: Timestamp) {
        self.is_open = true;
        self.hear(now);
        self.prune(now);
    }

    /// The cluster has spoken.
    pub(super) fn hear(&mut self, now: Timestamp) {
        self.heard = self.heard.max(Some(now));
    }

    /// Forgets those who went so long ago that every session of theirs has ended by itself.
    fn prune(&mut self, now: Timestamp) {
        let is_needed = |at: Timestamp| at.0.saturating_add(MAX_SESSION_SECS + LAG) > now.0;
        self.gone.retain(|_, at| is_needed(*at));
    }

    /// The watch has ended.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// Somebody is there.
    pub(super) fn see(&mut self, uid: &str, ends: Option<Timestamp>, now: Timestamp) {
        self.hear(now);
        self.there.insert(uid.into(), ends);
    }

    /// Somebody has gone.
    pub(super) fn bury(&mut self, uid: &str, now: Timestamp) {
        self.hear(now);
        self.there.remove(uid);
        self.gone.insert(uid.into(), now);
    }

    /// What is known of somebody whose session began at `since`.
    pub(super) fn standing(&self, uid: &str, since: Timestamp, now: Timestamp) -> Standing {
        let Some(heard) = self.heard else { return Standing::Unknown };
        match self.there.get(uid) {
            Some(Some(ends)) if ends.0.saturating_add(AFTER_END) < now.0 => Standing::Gone,
            Some(_) if self.is_open => Standing::There,
            Some(_) if heard.0.saturating_add(KEPT) >= now.0 => Standing::WasThere,
            Some(_) => Standing::Unknown,
            None if self.gone.contains_key(uid) => Standing::Gone,
            None if since.0.saturating_add(LAG) < heard.0 => Standing::Gone,
            None => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn at(seconds: u64) -> Timestamp {
        Timestamp(NOW.0 + seconds)
    }

    fn census(uids: &[&str]) -> Census {
        let mut census = Census::default();
        census.fill(uids.iter().map(|uid| ((*uid).to_owned(), None)), NOW);
        census.open(NOW);
        census
    }

    #[test]
    fn nobody_is_gone_before_the_first_list() {
        let census = Census::default();
        assert_eq!(census.standing("a", Timestamp(0), NOW), Standing::Unknown);
    }

    #[test]
    fn who_is_seen_to_go_is_gone_at_once_and_stays_gone() {
        let mut census = census(&["a"]);
        assert_eq!(census.standing("a", NOW, at(1)), Standing::There);
        census.bury("a", at(1));
        assert_eq!(census.standing("a", NOW, at(1)), Standing::Gone);
        census.close();
        assert_eq!(census.standing("a", NOW, at(100_000)), Standing::Gone);
    }

    #[test]
    fn who_went_while_nobody_listened_is_gone_with_the_next_list() {
        let mut census = census(&["a", "b"]);
        census.close();
        assert_eq!(census.standing("a", NOW, at(20)), Standing::WasThere);
        census.fill([("b".to_owned(), None)], at(20));
        // Also for a session that began a moment before the list.
        assert_eq!(census.standing("a", at(19), at(20)), Standing::Gone);
        assert_eq!(census.standing("b", NOW, at(20)), Standing::WasThere);
        census.open(at(21));
        assert_eq!(census.standing("b", NOW, at(21)), Standing::There);
    }

    #[test]
    fn session_from_before_a_restart_ends_when_its_pod_is_in_no_list() {
        let census = census(&["b"]);
        assert_eq!(census.standing("a", Timestamp(NOW.0 - 600), at(1)), Standing::Gone);
        assert_eq!(census.standing("a", Timestamp(NOW.0 - 10), at(1)), Standing::Unknown);
    }

    #[test]
    fn new_pod_is_unknown_until_the_watch_has_had_its_time() {
        let mut census = census(&["b"]);
        let bookmark = |census: &mut Census, now| census.hear(now);
        let another = |census: &mut Census, now| census.see("c", None, now);
        for (since, hear) in [(at(100), bookmark as fn(&mut Census, _)), (at(200), another)] {
            hear(&mut census, since);
            assert_eq!(census.standing("a", since, at(999)), Standing::Unknown);
            hear(&mut census, Timestamp(since.0 + 10));
            assert_eq!(census.standing("a", since, at(999)), Standing::Unknown);
            hear(&mut census, Timestamp(since.0 + 11));
            assert_eq!(census.standing("a", since, at(999)), Standing::Gone);
        }
        census.bury("b", at(311));
        assert_eq!(census.standing("a", at(300), at(999)), Standing::Gone);
    }

    #[test]
    fn new_pod_is_not_gone_because_the_watch_is_half_dead() {
        let mut census = census(&["b"]);
        // Whoever was seen is believed to be there, and nobody else to be gone.
        assert_eq!(census.standing("b", NOW, at(80)), Standing::There);
        assert_eq!(census.standing("a", at(20), at(80)), Standing::Unknown);
        // That a silent watch was given up proves nothing either.
        census.close();
        assert_eq!(census.standing("a", at(20), at(91)), Standing::Unknown);
    }

    #[test]
    fn new_pod_is_not_gone_because_nobody_listens() {
        let mut census = census(&[]);
        census.close();
        assert_eq!(census.standing("a", at(100), at(5_000)), Standing::Unknown);
    }

    #[test]
    fn what_was_heard_long_ago_is_no_knowledge() {
        let mut census = census(&["a"]);
        census.close();
        assert_eq!(census.standing("a", NOW, at(900)), Standing::WasThere);
        assert_eq!(census.standing("a", NOW, at(901)), Standing::Unknown);
    }

    #[test]
    fn who_does_not_end_in_his_time_is_gone_a_minute_later() {
        let mut census = census(&["a"]);
        census.see("a", Some(at(30)), NOW);
        assert_eq!(census.standing("a", NOW, at(90)), Standing::There);
        assert_eq!(census.standing("a", NOW, at(91)), Standing::Gone);
    }

    #[test]
    fn who_went_is_forgotten_after_the_longest_session_without_a_list() {
        let mut census = census(&["a"]);
        census.bury("a", at(1));
        census.open(at(MAX_SESSION_SECS + LAG));
        assert!(census.gone.contains_key("a"));
        census.open(at(MAX_SESSION_SECS + LAG + 1));
        assert!(census.gone.is_empty());
    }

    #[test]
    fn clock_that_goes_back_brings_nobody_back() {
        let mut census = census(&["a"]);
        census.bury("a", at(10));
        assert_eq!(census.standing("a", NOW, Timestamp(NOW.0 - 100)), Standing::Gone);
    }
}
