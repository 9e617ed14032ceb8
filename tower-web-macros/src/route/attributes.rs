//! What is written above a function: which requests it answers, and with what around it.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, LitStr, Meta};

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
                "body_limit" => own.body_limit = Some(attribute.parse_args()?),
                "handler_timeout" => own.handler_timeout = Some(attribute.parse_args()?),
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

/// `get` or `tower_web::get`, and not another crate's.
fn is_ours(path: &syn::Path) -> bool {
    path.segments.len() == 1 || path.segments[0].ident == "tower_web"
}
