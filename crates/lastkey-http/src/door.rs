//! One request, from its head to its answer.
//!
//! Room      `http`. The order is fixed: identity, route, seat, (admission,) body, handler.
//! Holds     no target, header or body of a request reaches the log; the pattern of its route
//!           does.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Body;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use lastkey_core::ids::RequestId;
use lastkey_core::principal::Peer;
use lastkey_service::ops::backups::BackupStanding;
use lastkey_service::sealing::{Gate, SealInfo};
use prometheus_client::registry::Registry;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::auth_layer::admit;
use crate::connection::protocol;
use crate::dialect::native::routes::{ROUTES, Route};
use crate::dialect::native::{Input, check_content_type, errors};
use crate::idle::Busy;
use crate::limits::{Limits, Seats, read_body};
use crate::metrics::{Levels, Metrics, MetricsAccess, RouteMetrics, SealLabels};
use crate::problem::Problem;
use crate::request_id::{RequestIdText, RequestIds};
use crate::router::{Found, Match, Router};
use crate::sys::{self, PUBLIC, PublicRoute};

/// Everything that requests share.
pub(crate) struct Door {
    gate: Arc<Gate>,
    limits: Limits,
    ids: RequestIds,
    public: Router<PublicRoute>,
    protected: Router<Route>,
    counts: Counts,
    metrics: Metrics,
    metrics_access: MetricsAccess,
    requests: Seats,
    connections: Seats,
    refusals: Seats,
    protocol: auto::Builder<TokioExecutor>,
    openapi: OnceLock<Bytes>,
    server_version: String,
}

/// The counters of all routes, in the order of their tables.
struct Counts {
    public: Vec<RouteMetrics>,
    protected: Vec<RouteMetrics>,
    none: RouteMetrics,
}

/// What a door is made of.
pub(crate) struct DoorParts {
    /// The service.
    pub(crate) gate: Arc<Gate>,
    /// The limits.
    pub(crate) limits: Limits,
    /// First half of all request ids.
    pub(crate) request_id_prefix: [u8; 8],
    /// Who may read metrics.
    pub(crate) metrics_access: MetricsAccess,
    /// Where metrics go.
    pub(crate) registry: Registry,
    /// Version of the server.
    pub(crate) server_version: String,
}

impl Door {
    /// Puts a door together.
    pub(crate) fn new(parts: DoorParts) -> Self {
        let metrics = Metrics::new(parts.registry, &parts.server_version);
        let counts = Counts {
            public: PUBLIC.iter().map(|route| metrics.route(route.operation)).collect(),
            protected: ROUTES.iter().map(|route| metrics.route(route.action)).collect(),
            none: metrics.route("none"),
        };
        Self {
            gate: parts.gate,
            limits: parts.limits,
            ids: RequestIds::new(parts.request_id_prefix),
            public: Router::new(PUBLIC),
            protected: Router::new(ROUTES),
            counts,
            metrics,
            metrics_access: parts.metrics_access,
            requests: Seats::new(parts.limits.requests_in_flight),
            connections: Seats::new(parts.limits.connections),
            refusals: Seats::new(MAX_REFUSALS),
            protocol: protocol(&parts.limits),
            openapi: OnceLock::new(),
            server_version: parts.server_version,
        }
    }

    /// The service.
    pub(crate) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The limits.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is counted.
    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Who may read it.
    pub(crate) const fn metrics_access(&self) -> MetricsAccess {
        self.metrics_access
    }

    /// Version of the server.
    pub(crate) fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The seats of connections.
    pub(crate) const fn connections(&self) -> &Seats {
        &self.connections
    }

    /// The seats of connections that are one too many and are being told so.
    pub(crate) const fn refusals(&self) -> &Seats {
        &self.refusals
    }

    /// How connections are spoken to.
    pub(crate) const fn protocol(&self) -> &auto::Builder<TokioExecutor> {
        &self.protocol
    }

    /// The OpenAPI document, made when it is first asked for.
    pub(crate) fn openapi(&self, make: impl FnOnce(&str) -> Bytes) -> Bytes {
        self.openapi.get_or_init(|| make(&self.server_version)).clone()
    }

    /// Everything counted so far, as text.
    pub(crate) fn scrape(&self, seals: &[SealInfo], backup: Option<BackupStanding>) -> Bytes {
        let known = |seal: &SealInfo| {
            let health = seal.health.as_ref()?;
            Some(SealLabels { seal: seal.id.to_string(), kind: seal.kind, health: health.as_str() })
        };
        let engine = self.gate.engine().ok();
        self.metrics.scrape(&Levels {
            rotations: engine.as_ref().map(|engine| engine.rotation_totals()).unwrap_or_default(),
            leases: engine.as_ref().map(|engine| engine.lease_totals()).unwrap_or_default(),
            seals: seals.iter().filter_map(known).collect(),
            backup,
            in_flight: self.requests.taken(),
            connections: self.connections.taken(),
            sealed: engine.is_none(),
            audit: self.gate.audit_state().unwrap_or_default(),
        })
    }

    /// Answers a request, and ends what marks it on its connection.
    pub(crate) async fn respond<B>(
        &self,
        request: Request<B>,
        peer: &Peer,
        busy: Busy,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let started = Instant::now();
        let id = self.ids.next();
        let target = self.target(request.method(), request.uri().path());
        let (counts, route) = (target.counts(&self.counts), target.route());
        // Pinned where it is made: it is large, and a timeout would move it.
        let handled = std::pin::pin!(self.handle(target, request, peer, id));
        let outcome = timeout_at(started + self.limits.request_time, handled).await;
        let outcome = outcome.unwrap_or(Err(Problem::Timeout));
        let id = RequestIdText::of(id);
        let answer = outcome.unwrap_or_else(|problem| told(problem, route, &id));
        let ended = Instant::now();
        busy.end(ended);
        let duration = ended.saturating_duration_since(started);
        counts.count(answer.error, duration);
        let status = answer.status.as_u16();
        tracing::debug!(request_id = %id, route, status, ?duration, "request");
        answer.into_response(&id, false)
    }

    /// Answers a request on a connection that is one too many.
    pub(crate) fn turn_away(&self, version: Version) -> Response<Full<Bytes>> {
        let id = RequestIdText::of(self.ids.next());
        let answer = told(Problem::Busy, "none", &id);
        self.counts.none.count(answer.error, std::time::Duration::ZERO);
        answer.into_response(&id, version != Version::HTTP_2)
    }

    fn target(&self, method: &Method, path: &str) -> Target {
        let protected = self.protected.find(method, path);
        if !matches!(protected, Match::Unknown) {
            return Target::Protected(protected);
        }
        let public = self.public.find(method, path);
        if matches!(public, Match::Unknown) {
            Target::Protected(Match::Unknown)
        } else {
            Target::Public(public)
        }
    }

    async fn handle<B>(
        &self,
        target: Target,
        request: Request<B>,
        peer: &Peer,
        id: RequestId,
    ) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let seat = self.requests.take();
        if seat.is_none() && !target.is_always_answered() {
            return Err(Problem::Busy);
        }
        match target {
            Target::Public(route) => {
                // Boxed, because it is rare and large, and every request carries this future.
                Box::pin(sys::answer(self, route.into_found()?.route, request, peer, id)).await
            }
            Target::Protected(route) => {
                let (admitted, signed) = admit(&self.gate, &request, peer, id).await?;
                let Found { route, params, .. } = route.into_found()?;
                let query = request.uri().query().map(Box::from);
                let (head, body) = request.into_parts();
                let body = read_body(body, self.limits.body_len).await?;
                signed.check(&body)?;
                check_content_type(&head.headers, &body)?;
                (route.handler)(admitted, Input { params, query, body })?.await
            }
        }
    }
}

/// Above this many, connections are closed without a word.
const MAX_REFUSALS: usize = 64;

fn told(problem: Problem, route: &'static str, id: &RequestIdText) -> Answer {
    errors::log(&problem, route, id);
    errors::answer(problem, id.as_str())
}

/// Where a request goes. What is not public is protected, also what there is not.
enum Target {
    Public(Match<PublicRoute>),
    Protected(Match<Route>),
}

impl Target {
    fn counts<'a>(&self, counts: &'a Counts) -> &'a RouteMetrics {
        let found = match self {
            Self::Public(Match::Found(found)) => counts.public.get(found.index),
            Self::Protected(Match::Found(found)) => counts.protected.get(found.index),
            Self::Public(Match::WrongMethod(_) | Match::Unknown)
            | Self::Protected(Match::WrongMethod(_) | Match::Unknown) => None,
        };
        found.unwrap_or(&counts.none)
    }

    /// The pattern of the route, for the log.
    const fn route(&self) -> &'static str {
        match self {
            Self::Public(Match::Found(found)) => found.route.path,
            Self::Protected(Match::Found(found)) => found.route.path,
            Self::Public(Match::WrongMethod(_) | Match::Unknown)
            | Self::Protected(Match::WrongMethod(_) | Match::Unknown) => "none",
        }
    }

    const fn is_always_answered(&self) -> bool {
        match self {
            Self::Public(Match::Found(found)) => found.route.always,
            Self::Public(Match::WrongMethod(_) | Match::Unknown) | Self::Protected(_) => false,
        }
    }
}
