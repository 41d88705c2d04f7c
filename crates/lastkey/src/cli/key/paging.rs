//! Lists: one page, or all pages as one.
//!
//! Room      `lastkey`.

use clap::Args;
use lastkey_client::Error;
use lastkey_wire::native::{
    access::{ListClustersReply, ListPoliciesReply, ListProvidersReply, ListRolesReply},
    aliases::ListAliasesReply,
    keys::ListKeysReply,
    nodes::ListNodesReply,
    query::PageQuery,
    users::ListUsersReply,
    versions::ListVersionsReply,
};

/// The longest page that the server gives.
const PAGE_LEN: u32 = 1_000;

/// Arguments of lists.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// One page of at most this many, 1 to 1000 (default: everything)
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where the page starts: `next_marker` of the page before
    #[arg(long, requires = "limit")]
    marker: Option<String>,
}

impl ListArgs {
    /// All pages.
    pub(crate) const fn everything() -> Self {
        Self { limit: None, marker: None }
    }
}

/// A page that tells where the next one starts.
pub(crate) trait Page {
    fn next_marker(&mut self) -> &mut Option<String>;
    /// Takes over the entries of a later page.
    fn append(&mut self, later: Self);
}

/// The page that was asked for, or all of them.
pub(crate) async fn listed<P: Page>(
    args: ListArgs,
    fetch: impl AsyncFn(PageQuery) -> Result<P, Error>,
) -> Result<P, Error> {
    if args.limit.is_some() {
        return fetch(page(args.limit, args.marker)).await;
    }
    let mut all = fetch(page(Some(PAGE_LEN), None)).await?;
    while let Some(marker) = all.next_marker().take() {
        let mut later = fetch(page(Some(PAGE_LEN), Some(marker))).await?;
        *all.next_marker() = later.next_marker().take();
        all.append(later);
    }
    Ok(all)
}

fn page(limit: Option<u32>, marker: Option<String>) -> PageQuery {
    PageQuery { limit, marker, dry_run: false }
}

/// Declares which field of a reply holds the entries.
macro_rules! pages {
    ($($reply:ty: $entries:ident,)*) => {
        $(impl Page for $reply {
            fn next_marker(&mut self) -> &mut Option<String> {
                &mut self.next_marker
            }

            fn append(&mut self, later: Self) {
                self.$entries.extend(later.$entries);
            }
        })*
    };
}

pages! {
    ListClustersReply: clusters,
    ListNodesReply: nodes,
    ListKeysReply: keys,
    ListPoliciesReply: policies,
    ListProvidersReply: providers,
    ListRolesReply: roles,
    ListUsersReply: users,
    ListVersionsReply: versions,
    ListAliasesReply: aliases,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use lastkey_wire::native::aliases::{AliasView, ListAliasesReply};

    use super::{ListArgs, listed};

    /// Three pages of one alias each; answers what was asked for, too.
    async fn list(args: ListArgs) -> (ListAliasesReply, Vec<Option<String>>) {
        let asked = RefCell::new(Vec::new());
        let reply = listed(args, async |query| {
            let place: usize = query.marker.as_ref().map_or(0, |marker| marker.parse().unwrap());
            asked.borrow_mut().push(query.marker);
            let view = AliasView { alias: format!("alias/{place}"), key: "k".to_owned() };
            let next_marker = (place < 2).then(|| (place + 1).to_string());
            Ok(ListAliasesReply { aliases: vec![view], next_marker })
        });
        (reply.await.unwrap(), asked.into_inner())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn list_follows_markers_to_the_end() {
        let (reply, asked) = run(list(ListArgs { limit: None, marker: None }));
        let names: Vec<&str> = reply.aliases.iter().map(|view| view.alias.as_str()).collect();
        assert_eq!(names, ["alias/0", "alias/1", "alias/2"]);
        assert_eq!(reply.next_marker, None);
        assert_eq!(asked, [None, Some("1".to_owned()), Some("2".to_owned())]);
    }

    #[test]
    fn list_with_a_limit_is_one_page() {
        let args = ListArgs { limit: Some(1), marker: Some("1".to_owned()) };
        let (reply, asked) = run(list(args));
        assert_eq!(reply.next_marker.as_deref(), Some("2"));
        assert_eq!(asked, [Some("1".to_owned())]);
    }
}
