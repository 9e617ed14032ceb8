#![doc = include_str!("guide.md")]

#[cfg(any(doc, doctest))]
pub mod guide;

pub mod builder;

#[doc(no_inline)]
pub use crate::builder::ServiceBuilder;
#[doc(inline)]
pub use tower_layer::Layer;
#[doc(inline)]
pub use tower_service::Service;

#[cfg(feature = "make")]
#[doc(inline)]
pub use crate::make::MakeService;
#[cfg(feature = "util")]
#[doc(inline)]
pub use crate::util::{ServiceExt, service_fn};

/// An error of any type, as the middleware that adds errors of its own returns it.
///
/// [`util::find_source`] looks for a type in it and in its sources.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

// The modules below have the paths of tower 0.5. Each item is documented in the crate that defines it.

/// Balances requests over endpoints that come and go.
#[cfg(feature = "balance")]
pub mod balance {
    #[doc(inline)]
    pub use tower_balance::{error, picker, pool, prequal};

    /// Picks the less loaded of two endpoints drawn at random.
    pub mod p2c {
        #[doc(inline)]
        pub use tower_balance::{
            Balance, MakeBalance, MakeBalanceLayer, MakeFuture, ResponseFuture,
        };
    }
}

/// Stops asking a service that fails, and tries it again with caution.
#[cfg(feature = "resilience")]
pub mod breaker {
    #[doc(inline)]
    pub use tower_breaker::*;
}

/// Puts a bounded queue in front of a service, which becomes `Clone`.
#[cfg(feature = "buffer")]
pub mod buffer {
    #[doc(inline)]
    pub use tower_buffer::{Buffer, BufferLayer, Worker};

    /// How a buffered service fails.
    pub mod error {
        #[doc(inline)]
        pub use tower_buffer::{AtCapacity, Closed, NoRuntime, Panicked, ServiceError};
    }

    /// The future of a buffered response.
    pub mod future {
        #[doc(inline)]
        pub use tower_buffer::ResponseFuture;
    }
}

/// What a response means: the classifiers that retries and other middleware share.
#[cfg(feature = "retry")]
pub mod classify {
    #[doc(inline)]
    pub use tower_classify::*;
}

/// Closing with grace: one trait for everything that stops accepting, drains and ends by a deadline.
#[cfg(feature = "resilience")]
pub mod close {
    #[doc(inline)]
    pub use tower_close::*;
}

/// An ambient deadline that is set at the edge and shrinks on the way.
#[cfg(feature = "resilience")]
pub mod deadline {
    #[doc(inline)]
    pub use tower_deadline::*;
}

/// Endpoints as a stream of changes.
#[cfg(feature = "discover")]
pub mod discover {
    #[doc(inline)]
    pub use tower_discover::{Change, Discover, ServiceList};
}

/// Admits, rejects or rewrites requests by a predicate.
#[cfg(feature = "filter")]
pub mod filter {
    #[doc(inline)]
    pub use tower_filter::{
        AsyncFilter, AsyncFilterLayer, AsyncPredicate, Filter, FilterLayer, Predicate,
    };

    /// The futures of filtered responses.
    pub mod future {
        #[doc(inline)]
        pub use tower_filter::{AsyncResponseFuture, ResponseFuture};
    }
}

/// Sends a request a second time where the first try takes unusually long.
#[cfg(feature = "hedge")]
pub mod hedge {
    #[doc(inline)]
    pub use tower_hedge::*;
}

/// What puts a middleware around a service.
pub mod layer {
    #[doc(inline)]
    pub use tower_layer::{Layer, LayerFn, layer_fn};

    /// Stacks of layers, and the layer that adds nothing.
    pub mod util {
        #[doc(inline)]
        pub use tower_layer::{Identity, Stack};
    }
}

/// Limits the number of requests in flight, and the rate at which they start.
#[cfg(feature = "limit")]
pub mod limit {
    #[doc(inline)]
    pub use tower_limit::bulkhead;

    #[doc(inline)]
    pub use self::concurrency::{
        ConcurrencyLimit, ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer,
    };
    #[doc(inline)]
    pub use self::rate::{GlobalRateLimitLayer, RateLimit, RateLimitLayer};

    /// Limits the number of requests in flight.
    pub mod concurrency {
        #[doc(inline)]
        pub use tower_limit::concurrency::{
            ConcurrencyLimit, ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer,
        };

        /// The future of a limited response.
        pub mod future {
            #[doc(inline)]
            pub use tower_limit::concurrency::ResponseFuture;
        }
    }

    /// Limits the rate at which requests start.
    pub mod rate {
        #[doc(inline)]
        pub use tower_limit::rate::*;
    }
}

/// Measures how loaded a service is, for balancers to compare.
#[cfg(feature = "load")]
pub mod load {
    #[doc(inline)]
    pub use tower_load::{
        CompleteOnResponse, Constant, Load, TrackCompletion, meter, outcome, peak_ewma,
        pending_requests, reported,
    };

    #[doc(inline)]
    pub use self::peak_ewma::PeakEwma;
    #[cfg(feature = "discover")]
    #[doc(inline)]
    pub use self::peak_ewma::PeakEwmaDiscover;
    #[doc(inline)]
    pub use self::pending_requests::PendingRequests;
    #[cfg(feature = "discover")]
    #[doc(inline)]
    pub use self::pending_requests::PendingRequestsDiscover;

    /// Says when a request counts as completed.
    pub mod completion {
        #[doc(inline)]
        pub use tower_load::{CompleteOnResponse, TrackCompletion, TrackCompletionFuture};
    }
}

/// Answers with an error, rather than waiting, where a service has no capacity.
#[cfg(feature = "load-shed")]
pub mod load_shed {
    #[doc(inline)]
    pub use tower_load_shed::{LoadShed, LoadShedLayer};

    /// What a shed request gets.
    pub mod error {
        #[doc(inline)]
        pub use tower_load_shed::Overloaded;
    }

    /// The future of a response that may be shed.
    pub mod future {
        #[doc(inline)]
        pub use tower_load_shed::ResponseFuture;
    }
}

/// Services that make services and connections.
#[cfg(feature = "make")]
pub mod make {
    #[doc(inline)]
    pub use tower_make::{AsService, IntoService, MakeConnection, MakeService, Shared};

    /// The future of a shared service.
    pub mod future {
        #[doc(inline)]
        pub use tower_make::SharedFuture;
    }
}

/// A cache of services that keeps the ready ones apart.
#[cfg(feature = "ready-cache")]
pub mod ready_cache {
    #[doc(inline)]
    pub use self::cache::ReadyCache;

    /// The cache.
    pub mod cache {
        #[doc(inline)]
        pub use tower_ready_cache::{Equivalent, ReadyCache};
    }

    /// How a cached service fails.
    pub mod error {
        #[doc(inline)]
        pub use tower_ready_cache::{Failed, NotReady};
    }
}

/// Makes a service anew when it fails.
#[cfg(feature = "reconnect")]
pub mod reconnect {
    #[doc(inline)]
    pub use tower_reconnect::{Reconnect, ResponseFuture};

    /// How reconnecting fails.
    pub mod error {
        #[doc(inline)]
        pub use tower_reconnect::NotReady;
    }
}

#[cfg(feature = "resilience")]
pub mod resilience;

/// Retries failed requests under a policy, a budget and a backoff.
#[cfg(feature = "retry")]
pub mod retry {
    #[doc(inline)]
    pub use tower_retry::{Policy, Retry, RetryLayer, backoff, standard};

    /// Bounds how many retries there are for the requests that there are.
    pub mod budget {
        #[doc(inline)]
        pub use tower_retry::budget::*;

        /// A budget of tokens that expire.
        pub mod tps_budget {
            #[doc(inline)]
            pub use tower_retry::budget::TpsBudget;
        }
    }

    /// The future of a response that may be retried.
    pub mod future {
        #[doc(inline)]
        pub use tower_retry::ResponseFuture;
    }
}

/// Drives a service to readiness on a background task.
#[cfg(feature = "spawn-ready")]
pub mod spawn_ready {
    #[doc(inline)]
    pub use tower_spawn_ready::{SpawnReady, SpawnReadyLayer};

    /// How driving readiness on a task fails.
    pub mod error {
        #[doc(inline)]
        pub use tower_spawn_ready::{Aborted, Closed, NoRuntime, NotReady, Panicked};
    }

    /// The future of a response.
    pub mod future {
        #[doc(inline)]
        pub use tower_spawn_ready::ResponseFuture;
    }
}

/// Routes each request to one of several services.
#[cfg(feature = "steer")]
pub mod steer {
    #[doc(inline)]
    pub use tower_steer::{Picker, Steer};
}

/// Fails requests that take longer than a bound.
#[cfg(feature = "timeout")]
pub mod timeout {
    #[doc(inline)]
    pub use tower_timeout::{Timeout, TimeoutLayer};

    /// How a timeout fails.
    pub mod error {
        #[doc(inline)]
        pub use tower_timeout::{Elapsed, NoRuntime};
    }

    /// The future of a bounded response.
    pub mod future {
        #[doc(inline)]
        pub use tower_timeout::ResponseFuture;
    }
}

/// Combinators, boxed services and helpers.
#[cfg(feature = "util")]
pub mod util {
    #[doc(inline)]
    pub use tower_util::optional::Optional;
    #[doc(inline)]
    pub use tower_util::{
        AndThen, AndThenLayer, BoxCloneService, BoxCloneServiceLayer, BoxCloneSyncService,
        BoxCloneSyncServiceLayer, BoxLayer, BoxService, CallAll, CallAllUnordered, Either,
        FutureService, MapErr, MapErrLayer, MapFuture, MapFutureLayer, MapRequest, MapRequestLayer,
        MapResponse, MapResponseLayer, MapResult, MapResultLayer, Oneshot, OptionLayer,
        OptionService, Ready, ReadyOneshot, ServiceExt, ServiceFn, Then, ThenLayer,
        UnsyncBoxCloneService, UnsyncBoxService, check_service, find_source, future_service,
        option_layer, option_layer_into, service_fn,
    };

    /// How the services here fail.
    pub mod error {
        /// How an [`Optional`](crate::util::Optional) service fails.
        pub mod optional {
            #[doc(inline)]
            pub use tower_util::optional::None;
        }
    }

    /// The futures of the services here.
    pub mod future {
        #[doc(inline)]
        pub use tower_util::{
            AndThenFuture, EitherResponseFuture, MapErrFuture, MapResponseFuture, MapResultFuture,
            ThenFuture,
        };

        /// The future of an [`Optional`](crate::util::Optional) service.
        pub mod optional {
            #[doc(inline)]
            pub use tower_util::optional::ResponseFuture;
        }
    }

    /// The source of chance that middleware draws from.
    pub mod rng {
        #[doc(inline)]
        pub use tower_rng::{HasherRng, Rng, SplitMix64};
    }
}
