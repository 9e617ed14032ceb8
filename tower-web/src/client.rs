//! Who a request comes from: the client's address, also behind proxies, and how much each may ask.
//!
//! [`ClientAddr`] is an argument of handlers. Where proxies stand in front, the layer [`TrustedProxies`] says which of them are believed;
//! without it, whoever is at the other end of the connection is the client, and no header is believed. [`ClientLimit`] bounds
//! how many requests each client may make.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;
use tower_hyper::{Address, ConnectInfo};
use tower_layer::Layer;
use tower_service::Service;

use crate::extract::{Extract, NoBody, OptionalExtract, Request, RequestHead, Requirements};
use crate::problem::Problem;

mod forwarded;
mod limit;

pub use limit::{ClientLimit, ClientLimitFuture, ClientLimitService};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client that a request comes from.
///
/// Behind proxies, see [`TrustedProxies`]. An IPv4 address is one, however the socket writes it.
///
/// `Option<ClientAddr>` is `None` where it isn't known: in a test, or behind a proxy that is connected by a Unix socket and doesn't tell.
///
/// # Example
///
/// ```
/// use tower_web::client::{ClientAddr, TrustedProxies};
/// use tower_web::prelude::*;
///
/// #[get("/")]
/// async fn whoami(client: ClientAddr) -> String {
///     client.ip().to_string()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_web::Result {
/// let app = App::new().layer(TrustedProxies::new(["10.0.0.0/8"])?).route(whoami);
/// # use tower_hyper::Address;
/// # let proxy = Address::Tcp("10.0.0.1:4711".parse()?);
/// # let request = app.test().get("/").extension(ConnectInfo::new(proxy, Address::Unknown));
/// // From the proxy 10.0.0.1:
/// let answer = request.header("x-forwarded-for", "192.0.2.9, 203.0.113.7").await;
/// // The last entry is the proxy's own; what stands before it anybody may have written.
/// answer.assert_text("203.0.113.7");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr {
    ip: IpAddr,
}

impl ClientAddr {
    /// The address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    fn of_peer(peer: Option<SocketAddr>) -> Option<Self> {
        let ip = peer?.ip().to_canonical();
        Some(Self { ip })
    }

    /// The client as far as a layer can tell.
    fn of_request(request: &Request) -> Option<Self> {
        let extensions = request.extensions();
        let known = extensions.get().copied();
        known.or_else(|| Self::of_peer(connection(request)?.peer_addr()))
    }
}

/// What is known of the connection. The body brings it along, unless a test has given it.
fn connection(request: &Request) -> Option<&ConnectInfo> {
    let given = request.extensions().get::<ConnectInfo>();
    given.or_else(|| request.body().connect_info())
}

impl Extract for ClientAddr {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Problem> {
        match <Self as OptionalExtract>::extract_optional(head, ()).await? {
            Some(client) => Ok(client),
            None => Err(Problem::internal(
                "nothing is known of the client: take `Option<ClientAddr>`",
            )),
        }
    }

    fn require(requirements: &mut Requirements) {
        requirements.connect_info();
    }
}

impl OptionalExtract for ClientAddr {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Problem> {
        if let Some(client) = head.extensions.get() {
            return Ok(Some(*client));
        }
        let connection = head.extensions.get::<ConnectInfo>();
        Ok(Self::of_peer(connection.and_then(ConnectInfo::peer_addr)))
    }
}

/// Says which proxies are believed when they tell whom a request comes from.
///
/// The list in `X-Forwarded-For`, or in `Forwarded` (RFC 7239), is read from its end: each proxy appends whom it was asked by. As long as
/// that is a trusted proxy itself, the entry before it counts. What anybody but a trusted proxy has written is never believed.
/// Who connects by a Unix socket is trusted: it is on this machine.
///
/// It is a [layer](crate::App::layer). Put it before others that want to know the client.
///
/// **Readiness**, **cancellation** and **errors** are those of what is inside.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    list: List,
}

#[derive(Debug, Clone, Copy)]
enum List {
    XForwardedFor,
    Forwarded,
}

/// What is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkError {
    text: String,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(
            f,
            "`{text}` is neither an address nor a network, as `10.0.0.0/8` or `fd00::/8`"
        )
    }
}

impl Error for NetworkError {}

impl TrustedProxies {
    /// Trusts proxies with these addresses or in these networks, as `10.0.0.0/8`, and reads their `X-Forwarded-For`.
    ///
    /// # Errors
    ///
    /// Fails where one is neither.
    pub fn new<I>(networks: I) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let networks = networks
            .into_iter()
            .map(|network| parse(network.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            networks,
            list: List::XForwardedFor,
        })
    }

    /// Reads `Forwarded` (RFC 7239) instead. Only one of them can be believed: a proxy that writes one passes the other
    /// on as the client wrote it.
    #[must_use]
    pub fn with_forwarded(mut self) -> Self {
        self.list = List::Forwarded;
        self
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Goes back from the connection's other end to the first that isn't a trusted proxy.
    fn client(&self, peer: &Address, headers: &HeaderMap) -> Option<ClientAddr> {
        let mut client = match peer {
            Address::Tcp(peer) => Some(peer.ip().to_canonical()),
            _ => None,
        };
        let is_local = matches!(peer, Address::Unix(_));
        if client.map_or(is_local, |peer| self.trusts(peer)) {
            let hops = match self.list {
                List::XForwardedFor => forwarded::x_forwarded_for(headers, &X_FORWARDED_FOR),
                List::Forwarded => forwarded::forwarded(headers, &FORWARDED),
            };
            for hop in hops.into_iter().rev() {
                // Who is unnamed can't be trusted, nor can what stands before.
                let Some(ip) = hop else { break };
                client = Some(ip);
                if !self.trusts(ip) {
                    break;
                }
            }
        }
        client.map(|ip| ClientAddr { ip })
    }
}

fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let network = text.parse::<IpNet>().ok();
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    network.or_else(address).ok_or_else(|| NetworkError {
        text: text.to_owned(),
    })
}

impl<S> Layer<S> for TrustedProxies {
    type Service = TrustedProxiesService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TrustedProxiesService {
            proxies: self.clone(),
            inner,
        }
    }
}

/// What [`TrustedProxies`] makes of a service.
#[derive(Debug, Clone)]
pub struct TrustedProxiesService<S> {
    proxies: TrustedProxies,
    inner: S,
}

impl<S: Service<Request>> Service<Request> for TrustedProxiesService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> S::Future {
        let client = connection(&request)
            .and_then(|connection| self.proxies.client(connection.peer(), request.headers()));
        if let Some(client) = client {
            request.extensions_mut().insert(client);
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(proxies: &TrustedProxies, peer: &str, lines: &[&'static str]) -> Option<String> {
        let name = match proxies.list {
            List::XForwardedFor => X_FORWARDED_FOR,
            List::Forwarded => FORWARDED,
        };
        let lines = lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_static(line)));
        let peer = match peer.parse() {
            Ok(ip) => Address::Tcp(SocketAddr::new(ip, 1)),
            Err(_) => Address::Unix(None),
        };
        let client = proxies.client(&peer, &lines.collect());
        client.map(|client| client.ip().to_string())
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let proxies = TrustedProxies::new(["10.0.0.0/8", "::1"]).unwrap();
        let found = |peer, lines: &[&'static str]| client(&proxies, peer, lines).unwrap();
        assert_eq!(found("203.0.113.7", &["192.0.2.1"]), "203.0.113.7");
        assert_eq!(found("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(found("::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(found("::1", &["192.0.2.1:80"]), "192.0.2.1");
        assert_eq!(
            found("::1", &["192.0.2.1", "192.0.2.2, 10.1.1.1"]),
            "192.0.2.2"
        );
        assert_eq!(found("::1", &["192.0.2.1, unknown, 10.1.1.1"]), "10.1.1.1");
        // All of them are proxies: the first of the chain.
        assert_eq!(found("::1", &["10.0.0.9, 10.0.0.8"]), "10.0.0.9");
        assert_eq!(found("::1", &[]), "::1");
        assert_eq!(
            client(&proxies, "unix", &["192.0.2.1"]).unwrap(),
            "192.0.2.1"
        );
        assert_eq!(client(&proxies, "unix", &[]), None);
    }

    #[test]
    fn the_standard_s_header_is_read_where_it_is_asked_for() {
        let proxies = TrustedProxies::new(["127.0.0.1"]).unwrap().with_forwarded();
        let lines = ["for=192.0.2.9", "for=\"[2001:db8::7]:443\";proto=https"];
        let found = client(&proxies, "127.0.0.1", &lines);
        assert_eq!(found.unwrap(), "2001:db8::7");
    }

    #[test]
    fn what_is_no_network_is_told_with_what_one_looks_like() {
        for text in ["", "10.0.0.0/33", "proxy.example", "10.0.0.1:80"] {
            let error = TrustedProxies::new([text]).unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{text}");
        }
    }
}
