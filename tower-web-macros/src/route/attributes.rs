//! What is written above a function: which requests it answers, and with what around it.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Lit, LitStr, Meta};

use crate::describe::Above;

/// The attributes that make a route.
const METHODS: [&str; 9] = [
    "get", "post", "put", "delete", "patch", "head", "options", "any", "fallback",
];

/// What the attributes of a function say.
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) methods: Vec<Method>,
    pub(super) layers: Vec<Expr>,
    pub(super) body_limit: Option<Expr>,
    pub(super) handler_timeout: Option<Expr>,
    /// They go along with everything that is generated.
    pub(crate) cfgs: Vec<Attribute>,
    pub(super) above: Above,
}

/// `#[get("/…")]`.
pub(crate) struct Method {
    pub(super) name: String,
    pub(super) path: Option<LitStr>,
    pub(super) span: Span,
}

impl Method {
    /// From the attribute's name and its arguments.
    pub(crate) fn new(name: &str, span: Span, arguments: TokenStream) -> syn::Result<Self> {
        if name == "fallback" {
            if !arguments.is_empty() {
                return Err(Error::new_spanned(
                    arguments,
                    "`#[fallback]` has no path: it answers what no route does",
                ));
            }
            return Ok(Self {
                name: name.to_owned(),
                path: None,
                span,
            });
        }
        let wanted = format!("write the path as text: `#[{name}(\"/path/{{capture}}\")]`");
        if arguments.is_empty() {
            return Err(Error::new(span, wanted));
        }
        let path = syn::parse2::<LitStr>(arguments.clone())
            .map_err(|_| Error::new_spanned(arguments, wanted))?;
        Ok(Self {
            name: name.to_owned(),
            path: Some(path),
            span,
        })
    }
}

impl Attributes {
    /// Takes our attributes out of the list, and leaves the others.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Self> {
        let mut own = Self::default();
        let mut others = Vec::new();
        for attribute in attributes.drain(..) {
            let name = match attribute.path().segments.last() {
                Some(segment) => segment.ident.to_string(),
                None => String::new(),
            };
            match &*name {
                "layer" => own.layers.push(attribute.parse_args()?),
                "body_limit" => own.body_limit = Some(bytes(attribute.parse_args()?)?),
                "handler_timeout" => own.handler_timeout = Some(time(attribute.parse_args()?)?),
                "cfg" => {
                    own.cfgs.push(attribute.clone());
                    others.push(attribute);
                }
                name if METHODS.contains(&name) && is_ours(attribute.path()) => {
                    let arguments = match &attribute.meta {
                        Meta::List(list) => list.tokens.clone(),
                        Meta::Path(_) => TokenStream::new(),
                        Meta::NameValue(pair) => pair.value.to_token_stream(),
                    };
                    own.methods
                        .push(Method::new(name, attribute.path().span(), arguments)?);
                }
                _ => others.push(attribute),
            }
        }
        own.above = Above::new(&others);
        *attributes = others;
        Ok(own)
    }
}

/// Takes away what only a route has above it, where none is made of the function: it isn't misplaced.
pub(crate) fn strip(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        let path = attribute.path();
        let is_own = path.segments.last().is_some_and(|last| {
            let name = last.ident.to_string();
            ["layer", "body_limit", "handler_timeout"].contains(&&*name)
                || METHODS.contains(&&*name)
        });
        !(is_own && is_ours(path))
    });
}

/// The limit of a body. A literal that isn't a number is told here, as the type's own complaint wouldn't say of what.
fn bytes(limit: Expr) -> syn::Result<Expr> {
    match &limit {
        Expr::Lit(literal) if !matches!(literal.lit, Lit::Int(_)) => Err(Error::new_spanned(
            limit,
            "a body's limit is a number of bytes: `#[body_limit(2 * 1024 * 1024)]`",
        )),
        _ => Ok(limit),
    }
}

/// The time of a handler, which no literal is.
fn time(timeout: Expr) -> syn::Result<Expr> {
    match &timeout {
        Expr::Lit(_) => Err(Error::new_spanned(
            timeout,
            "a handler's time is a `Duration`, or `None`: `#[handler_timeout(Duration::from_secs(5))]`",
        )),
        _ => Ok(timeout),
    }
}

/// `get` or `tower_web::get`, and not another crate's.
fn is_ours(path: &syn::Path) -> bool {
    path.segments.len() == 1 || path.segments[0].ident == "tower_web"
}
