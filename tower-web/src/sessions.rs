//! Cookies that clients can't forge, cookies that they can't read, and sessions in them.
//!
//! A [`CookieKey`] signs or seals cookies: what comes back has been written by who has the key. [`Sessions`] keeps a value of yours in a sealed
//! cookie, so that no server has to remember it, and any that has the key can go on.
//!
//! # When not to use it
//!
//! What is in a cookie can't be called back before it expires: where a user must be locked out at once, keep an id in the session, and the
//! rest in a database. And a cookie holds 4 kB.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use cookie::Key;
use serde_core::Serialize;
use serde_core::de::DeserializeOwned;

use crate::cookies::{Cookie, CookieAge, Cookies};

/// What cookies are signed and sealed with.
///
/// It signs by HMAC-SHA-256 and seals by AES-256-GCM, each bound to the cookie's name.
///
/// A clone is the same key.
#[derive(Clone)]
pub struct CookieKey {
    current: Key,
    /// Which are believed still.
    previous: Vec<Key>,
}

/// A secret that is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortSecret {
    length: usize,
}

impl fmt::Display for ShortSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length } = self;
        write!(
            f,
            "the secret has {length} bytes, and must have {MIN_SECRET} that nobody can guess: `openssl rand -hex 32` makes some"
        )
    }
}

impl Error for ShortSecret {}

const MIN_SECRET: usize = 32;

impl CookieKey {
    /// Derives the key from a secret of at least 32 bytes, as from a variable of the environment (HKDF, RFC 5869).
    ///
    /// # Errors
    ///
    /// Fails where the secret is shorter.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, ShortSecret> {
        let secret = secret.as_ref();
        match secret.len() {
            MIN_SECRET.. => Ok(Self {
                current: Key::derive_from(secret),
                previous: Vec::new(),
            }),
            length => Err(ShortSecret { length }),
        }
    }

    /// A key that nobody else has, nor this process once it has restarted: for tests, and to try.
    ///
    /// # Panics
    ///
    /// Panics where the operating system has no randomness.
    pub fn generate() -> Self {
        Self {
            current: Key::generate(),
            previous: Vec::new(),
        }
    }

    /// Believes what `other` has written, too: for as long as such cookies are about, after a change of keys.
    #[must_use]
    pub fn with_previous(mut self, other: Self) -> Self {
        self.previous.push(other.current);
        self.previous.extend(other.previous);
        self
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKey").finish_non_exhaustive()
    }
}

impl Cookies {
    /// The value of a cookie that was [signed](Self::set_signed) with this key. `None` where it is absent, or isn't genuine.
    pub fn signed(&self, key: &CookieKey, name: &str) -> Option<String> {
        let mut found = key.all().filter_map(|key| self.jar.signed(key).get(name));
        found.next().map(|cookie| cookie.value().to_owned())
    }

    /// Sets a cookie that its client may read, and can't change.
    pub fn set_signed(&mut self, key: &CookieKey, cookie: impl Into<Cookie<'static>>) {
        let cookie = Self::completed(cookie.into());
        self.jar.signed_mut(&key.current).add(cookie);
    }

    /// The value of a cookie that was [sealed](Self::set_sealed) with this key. `None` where it is absent, or isn't genuine.
    pub fn sealed(&self, key: &CookieKey, name: &str) -> Option<String> {
        let mut found = key.all().filter_map(|key| self.jar.private(key).get(name));
        found.next().map(|cookie| cookie.value().to_owned())
    }

    /// Sets a cookie that its client can neither read nor change.
    pub fn set_sealed(&mut self, key: &CookieKey, cookie: impl Into<Cookie<'static>>) {
        let cookie = Self::completed(cookie.into());
        self.jar.private_mut(&key.current).add(cookie);
    }
}

/// Sessions: a value of type `T` for each client, in a sealed cookie.
///
/// Keep one in a resource. By default the cookie is `__Host-session`, which browsers take only over TLS and from this very host, and a
/// session ends 12 hours after it was last [set](Self::set), also for a client that keeps its cookie longer.
///
/// # Example
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tower_web::prelude::*;
/// use tower_web::sessions::{CookieKey, SessionError, Sessions};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     id: u64,
/// }
///
/// struct Accounts {
///     sessions: Sessions<User>,
/// }
///
/// #[resource("/")]
/// impl Accounts {
///     #[post("/login")]
///     async fn login(&self, mut cookies: Cookies) -> Result<Cookies, SessionError> {
///         self.sessions.set(&mut cookies, &User { id: 7 })?;
///         Ok(cookies)
///     }
///
///     #[get("/me")]
///     async fn me(&self, cookies: Cookies) -> Option<String> {
///         let user = self.sessions.get(&cookies)?;
///         Some(format!("user {}", user.id))
///     }
///
///     #[post("/logout")]
///     async fn logout(&self, mut cookies: Cookies) -> Cookies {
///         self.sessions.end(&mut cookies);
///         cookies
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sessions = Sessions::new(CookieKey::generate());
/// let client = App::new().resource(Accounts { sessions }).test();
/// client.get("/me").await.assert_status(404);
///
/// let login = client.post("/login").await;
/// let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap();
/// client.get("/me").header("cookie", cookie).await.assert_text("user 7");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Sessions<T> {
    key: CookieKey,
    name: String,
    max_age: Duration,
    value: PhantomData<fn() -> T>,
}

/// A session that can't be kept.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// It is larger than browsers keep cookies.
    TooLarge {
        /// The size of the cookie in bytes, of 4096 at most.
        size: usize,
    },
    /// It can't be written as JSON.
    Unwritable(serde_json::Error),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => write!(
                f,
                "the session's cookie has {size} bytes, and browsers keep {MAX_COOKIE}: keep an id in it, and the rest in a database"
            ),
            Self::Unwritable(_) => f.write_str("the session can't be written as JSON"),
        }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Unwritable(error) => Some(error),
        }
    }
}

/// A 500: whoever is told can't do anything about it.
impl crate::IntoResponse for SessionError {
    fn into_response(self) -> crate::Response {
        crate::Problem::internal(self).into_response()
    }
}

/// Of the name, the value and the attributes (RFC 6265, section 6.1).
const MAX_COOKIE: usize = 4096;

impl<T: Serialize + DeserializeOwned> Sessions<T> {
    /// Sessions that are sealed with this key.
    pub fn new(key: CookieKey) -> Self {
        Self {
            key,
            name: "__Host-session".to_owned(),
            max_age: Duration::from_secs(12 * 3600),
            value: PhantomData,
        }
    }

    /// Calls the cookie otherwise.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a session lasts from when it was last [set](Self::set), in whole seconds.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The client's session, if it has one that is genuine, hasn't ended, and is a `T`.
    pub fn get(&self, cookies: &Cookies) -> Option<T> {
        self.get_at(cookies, SystemTime::now())
    }

    fn get_at(&self, cookies: &Cookies, now: SystemTime) -> Option<T> {
        let text = cookies.sealed(&self.key, &self.name)?;
        let (end, value) = text.split_once(' ')?;
        let is_over = seconds(now) >= end.parse().ok()?;
        let value = || serde_json::from_str(value).ok();
        (!is_over).then(value)?
    }

    /// Begins a session, or goes on with another value. The handler returns the cookies.
    ///
    /// # Errors
    ///
    /// Fails where the value is too large for a cookie, or isn't JSON.
    pub fn set(&self, cookies: &mut Cookies, value: &T) -> Result<(), SessionError> {
        self.set_at(cookies, value, SystemTime::now())
    }

    fn set_at(
        &self,
        cookies: &mut Cookies,
        value: &T,
        now: SystemTime,
    ) -> Result<(), SessionError> {
        let age = self.max_age.as_secs();
        let end = seconds(now).saturating_add(age);
        let value = serde_json::to_string(value).map_err(SessionError::Unwritable)?;
        let mut cookie = Cookie::new(self.name.clone(), format!("{end} {value}"));
        // No browser keeps a cookie for longer than some hundred days.
        let age = i64::try_from(age).unwrap_or(i64::MAX);
        cookie.set_max_age(CookieAge::seconds(age));
        let mut sealed = Cookies::new();
        sealed.set_sealed(&self.key, cookie);
        let size = sealed.written().map(|cookie| cookie.len()).max();
        match size {
            Some(size) if size > MAX_COOKIE => Err(SessionError::TooLarge { size }),
            _ => {
                cookies.take(sealed);
                Ok(())
            }
        }
    }

    /// Ends the client's session. The handler returns the cookies.
    pub fn end(&self, cookies: &mut Cookies) {
        cookies.remove(self.name.clone());
    }
}

fn seconds(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::IntoHeaders as _;

    /// What a client that got these cookies sends.
    fn sent_back(cookies: Cookies) -> Cookies {
        let mut headers = http::HeaderMap::new();
        cookies.put(&mut headers);
        let pairs = headers.get_all("set-cookie").iter().map(|cookie| {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            (http::header::COOKIE, cookie.parse().unwrap())
        });
        Cookies::read(&pairs.collect())
    }

    fn changed(cookies: &Cookies, name: &str) -> Cookies {
        let mut value = cookies.get(name).unwrap().to_owned();
        let last = if value.ends_with('A') { 'B' } else { 'A' };
        value.replace_range(..1, &last.to_string());
        let mut changed = Cookies::new();
        changed.set(Cookie::new(name.to_owned(), value));
        sent_back(changed)
    }

    #[test]
    fn what_was_signed_is_read_and_what_was_changed_isn_t() {
        let key = CookieKey::generate();
        let mut cookies = Cookies::new();
        cookies.set_signed(&key, ("user", "7; é"));
        let cookies = sent_back(cookies);
        assert_eq!(cookies.signed(&key, "user").unwrap(), "7; é");
        assert_eq!(changed(&cookies, "user").signed(&key, "user"), None);
        assert_eq!(cookies.signed(&CookieKey::generate(), "user"), None);
        assert_eq!(cookies.signed(&key, "other"), None);
    }

    #[test]
    fn what_was_sealed_can_t_be_read_and_has_the_safe_defaults() {
        let key = CookieKey::generate();
        let mut cookies = Cookies::new();
        cookies.set_sealed(&key, ("user", "Ann"));
        let mut headers = http::HeaderMap::new();
        cookies.clone().put(&mut headers);
        let text = headers["set-cookie"].to_str().unwrap();
        assert!(!text.contains("Ann"), "{text}");
        assert!(
            text.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"),
            "{text}"
        );
        let cookies = sent_back(cookies);
        assert_eq!(cookies.sealed(&key, "user").unwrap(), "Ann");
        assert_eq!(changed(&cookies, "user").sealed(&key, "user"), None);
    }

    #[test]
    fn a_previous_key_is_believed_and_writes_no_more() {
        let old = CookieKey::new("0123456789abcdef0123456789abcdef").unwrap();
        let new = CookieKey::generate().with_previous(old.clone());
        let mut cookies = Cookies::new();
        cookies.set_sealed(&old, ("a", "1"));
        cookies.set_signed(&old, ("b", "2"));
        let mut cookies = sent_back(cookies);
        assert_eq!(cookies.sealed(&new, "a").unwrap(), "1");
        assert_eq!(cookies.signed(&new, "b").unwrap(), "2");
        cookies.set_sealed(&new, ("a", "3"));
        let cookies = sent_back(cookies);
        assert_eq!(cookies.sealed(&new, "a").unwrap(), "3");
        assert_eq!(cookies.sealed(&old, "a"), None);
    }

    #[test]
    fn a_secret_that_is_too_short_is_told_with_what_makes_one() {
        let error = CookieKey::new("hunter2").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("7 bytes") && text.contains("openssl rand"),
            "{text}"
        );
        assert_eq!(format!("{:?}", CookieKey::generate()), "CookieKey { .. }");
    }

    #[test]
    fn a_session_ends_by_the_server_s_clock() {
        let sessions = Sessions::<u32>::new(CookieKey::generate())
            .with_name("s")
            .with_max_age(Duration::from_secs(60));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut cookies = Cookies::new();
        sessions.set_at(&mut cookies, &7, now).unwrap();
        let cookies = sent_back(cookies);
        let after = |seconds| sessions.get_at(&cookies, now + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(7));
        assert_eq!(after(59), Some(7));
        assert_eq!(after(60), None);
    }

    #[test]
    fn a_session_of_another_type_is_none() {
        let key = CookieKey::generate();
        let mut cookies = Cookies::new();
        let texts = Sessions::<String>::new(key.clone());
        texts.set(&mut cookies, &"seven".to_owned()).unwrap();
        assert_eq!(Sessions::<u32>::new(key).get(&cookies), None);
    }

    #[test]
    fn a_session_that_is_too_large_is_refused_and_the_old_one_stays() {
        let sessions = Sessions::<String>::new(CookieKey::generate());
        let mut cookies = Cookies::new();
        sessions.set(&mut cookies, &"small".to_owned()).unwrap();
        let large = "x".repeat(4000);
        let error = sessions.set(&mut cookies, &large).unwrap_err();
        assert!(matches!(error, SessionError::TooLarge { size } if size > 4096));
        assert_eq!(sessions.get(&cookies).unwrap(), "small");
    }

    #[test]
    fn an_ended_session_is_gone() {
        let sessions = Sessions::<u32>::new(CookieKey::generate());
        let mut cookies = Cookies::new();
        sessions.set(&mut cookies, &7).unwrap();
        sessions.end(&mut cookies);
        assert_eq!(sessions.get(&cookies), None);
        assert_eq!(sessions.get(&sent_back(cookies)), None);
    }
}
