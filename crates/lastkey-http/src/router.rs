//! Finds the route of a path: fixed paths first, then those with parameters.
//!
//! Room      `http`. Built from the tables in `sys` and in the dialects; there is no other way
//!           to a handler.

use http::Method;

use crate::problem::{Problem, Syntax};

/// A row of a route table.
pub(crate) trait Routed: 'static {
    /// Its method.
    fn method(&self) -> &Method;
    /// Its path, with parameters in braces.
    fn path(&self) -> &'static str;
}

/// The routes of one table.
#[derive(Debug)]
pub(crate) struct Router<R: Routed> {
    fixed: Vec<Entry<R>>,
    patterns: Vec<Entry<R>>,
}

/// One path and its routes.
#[derive(Debug)]
struct Entry<R: Routed> {
    path: &'static str,
    /// Place in the table, and route.
    routes: Vec<(usize, &'static R)>,
    /// The methods, as the header `Allow` writes them.
    allow: String,
}

/// A route that was found.
#[derive(Debug)]
pub(crate) struct Found<R: Routed> {
    /// The route.
    pub(crate) route: &'static R,
    /// Its place in the table.
    pub(crate) index: usize,
    /// The parameters of the path, as they were sent.
    pub(crate) params: Params,
}

/// What a router says of a path and a method.
#[derive(Debug)]
pub(crate) enum Match<R: Routed> {
    /// A route.
    Found(Found<R>),
    /// The path is there, with other methods: these.
    WrongMethod(String),
    /// No such path.
    Unknown,
}

impl<R: Routed> Router<R> {
    /// A router over a table.
    pub(crate) fn new(table: &'static [R]) -> Self {
        let mut router = Self { fixed: Vec::new(), patterns: Vec::new() };
        for (index, route) in table.iter().enumerate() {
            let path = route.path();
            let entries = if path.contains('{') { &mut router.patterns } else { &mut router.fixed };
            match entries.iter_mut().find(|entry| entry.path == path) {
                Some(entry) => entry.routes.push((index, route)),
                None => {
                    entries.push(Entry { path, routes: vec![(index, route)], allow: String::new() })
                }
            }
        }
        for entry in router.fixed.iter_mut().chain(&mut router.patterns) {
            entry.allow = allow_header(&entry.routes);
        }
        router
    }

    /// Finds the route of a request.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Match<R> {
        if let Some(entry) = self.fixed.iter().find(|entry| entry.path == path) {
            return entry.choose(method, Params::default());
        }
        for entry in &self.patterns {
            if let Some(params) = matched(entry.path, path) {
                return entry.choose(method, params);
            }
        }
        Match::Unknown
    }
}

impl<R: Routed> Entry<R> {
    fn choose(&self, method: &Method, params: Params) -> Match<R> {
        match self.routes.iter().find(|(_, route)| route.method() == method) {
            Some(&(index, route)) => Match::Found(Found { route, index, params }),
            None => Match::WrongMethod(self.allow.clone()),
        }
    }
}

/// The methods of a path, as the header `Allow` lists them.
fn allow_header<R: Routed>(routes: &[(usize, &'static R)]) -> String {
    let methods: Vec<_> = routes.iter().map(|(_, route)| route.method().as_str()).collect();
    methods.join(", ")
}

/// The parameters of a path, at most two.
#[derive(Debug, Default)]
pub(crate) struct Params([Option<Box<str>>; 2]);

impl Params {
    /// Parameter number `place`, decoded.
    ///
    /// # Errors
    /// [`Syntax`] when it is not percent-encoded UTF-8.
    pub(crate) fn get(&self, place: usize, name: &str) -> Result<String, Syntax> {
        let raw = self.0.get(place).and_then(Option::as_deref).unwrap_or_default();
        percent_decode(raw, false)
            .ok_or_else(|| Syntax::field(name, "expected percent-encoded UTF-8"))
    }
}

/// Compares a path with a pattern, segment by segment.
fn matched(pattern: &str, path: &str) -> Option<Params> {
    let mut params = Params::default();
    let mut free = params.0.iter_mut();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with("{+") {
            // The rest of the path, whatever its length.
            let rest = std::iter::once(segment).chain(segments.by_ref());
            let rest = rest.collect::<Vec<_>>().join("/");
            *free.next()? = (!rest.is_empty()).then(|| rest.into());
            return params.0.iter().any(Option::is_some).then_some(params);
        }
        if wanted.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            *free.next()? = Some(segment.into());
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(params)
}

/// Decodes percent-encoding (RFC 3986, section 2.1), in forms also `+` for a space.
pub(crate) fn percent_decode(text: &str, form: bool) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_value(bytes.next()?)? << 4 | hex_value(bytes.next()?)?,
            b'+' if form => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl<R: Routed> Match<R> {
    /// The route that was found.
    ///
    /// # Errors
    /// [`Problem::MethodNotAllowed`], [`Problem::NotFound`].
    pub(crate) fn into_found(self) -> Result<Found<R>, Problem> {
        match self {
            Self::Found(found) => Ok(found),
            Self::WrongMethod(allow) => Err(Problem::MethodNotAllowed(allow)),
            Self::Unknown => Err(Problem::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Row(Method, &'static str);

    impl Routed for Row {
        fn method(&self) -> &Method {
            &self.0
        }

        fn path(&self) -> &'static str {
            self.1
        }
    }

    static TABLE: &[Row] = &[
        Row(Method::POST, "/v1/encrypt"),
        Row(Method::GET, "/v1/keys"),
        Row(Method::POST, "/v1/keys"),
        Row(Method::PUT, "/v1/keys/{key}/tags"),
        Row(Method::DELETE, "/v1/keys/{key}/tags"),
        Row(Method::GET, "/v1/keys/{key}/versions/{version}"),
        Row(Method::GET, "/v1/files/{+file}"),
    ];

    fn find(method: &Method, path: &str) -> Option<(usize, Vec<String>)> {
        match Router::new(TABLE).find(method, path) {
            Match::Found(found) => {
                let params = found.params.0.into_iter().flatten().map(String::from).collect();
                Some((found.index, params))
            }
            Match::WrongMethod(_) | Match::Unknown => None,
        }
    }

    #[test]
    fn router_finds_fixed_paths_and_patterns() {
        assert_eq!(find(&Method::POST, "/v1/encrypt"), Some((0, vec![])));
        assert_eq!(find(&Method::POST, "/v1/keys"), Some((2, vec![])));
        assert_eq!(find(&Method::PUT, "/v1/keys/a/tags"), Some((3, vec!["a".into()])));
        let found = find(&Method::GET, "/v1/keys/a/versions/7");
        assert_eq!(found, Some((5, vec!["a".into(), "7".into()])));
        let found = find(&Method::GET, "/v1/files/tile/0/x001/067.p/5");
        assert_eq!(found, Some((6, vec!["tile/0/x001/067.p/5".into()])));
        assert_eq!(find(&Method::GET, "/v1/files/"), None);
    }

    #[test]
    fn router_finds_nothing_near_a_path() {
        for path in ["/", "/v1/encrypt/", "//v1/encrypt", "/v1/keys//tags", "/v1/keys/a/b/tags"] {
            assert_eq!(find(&Method::POST, path), None, "{path}");
        }
    }

    #[test]
    fn router_tells_the_methods_of_a_path() {
        let router = Router::new(TABLE);
        for (path, expected) in [
            ("/v1/encrypt", "POST"),
            ("/v1/keys", "GET, POST"),
            ("/v1/keys/a/tags", "PUT, DELETE"),
            ("/v1/keys/a/versions/1", "GET"),
        ] {
            let Match::WrongMethod(allow) = router.find(&Method::OPTIONS, path) else {
                panic!("{path}");
            };
            assert_eq!(allow, expected, "{path}");
        }
    }

    #[test]
    fn percent_encoding_is_decoded_and_bad_encoding_refused() {
        assert_eq!(percent_decode("alias%2Fa%2fb+c", false).as_deref(), Some("alias/a/b+c"));
        assert_eq!(percent_decode("a+b%2B", true).as_deref(), Some("a b+"));
        for bad in ["%", "%2", "%2x", "%+2", "%ff"] {
            assert_eq!(percent_decode(bad, false), None, "{bad}");
        }
    }
}
