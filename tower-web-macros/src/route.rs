//! A function or method that is a route, and the code that calls it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Ident, ReturnType, Signature, Type, Visibility};

use crate::describe;
use crate::pattern::{Pattern, join};

mod arguments;
mod attributes;

use self::arguments::{Argument, bind, borrows};
pub(crate) use self::arguments::{check, is_str};
pub(crate) use self::attributes::{Attributes, Method, strip};

/// A function with one of its paths.
pub(crate) struct Route<'a> {
    pub(crate) signature: &'a Signature,
    pub(crate) attributes: &'a Attributes,
    /// The method of HTTP, in lower case.
    method: &'a str,
    path: String,
    pub(crate) pattern: Pattern,
    /// The token to which a complaint about the path points.
    pub(crate) path_span: Span,
    arguments: Vec<Argument<'a>>,
    /// The type parameters of the `impl` that it stands in.
    parameters: &'a [Ident],
}

/// How the function is called.
pub(crate) enum Callee<'a> {
    /// `Self::name(&*resource, …)` or `Self::name(…)`.
    Method,
    /// `Type::name(…)`.
    Function(&'a Ident),
}

impl<'a> Route<'a> {
    pub(crate) fn new(
        prefix: &str,
        method: &'a Method,
        attributes: &'a Attributes,
        signature: &'a Signature,
        parameters: &'a [Ident],
    ) -> syn::Result<Self> {
        let (path, path_span) = match &method.path {
            Some(path) => {
                if !path.value().starts_with('/') {
                    return Err(Error::new(path.span(), "a path begins with `/`"));
                }
                (join(prefix, &path.value()), path.span())
            }
            None => (join(prefix, "/"), method.span),
        };
        let pattern = Pattern::parse(&path).map_err(|message| Error::new(path_span, message))?;
        let arguments = bind(signature, &pattern)?;
        let route = Self {
            signature,
            attributes,
            method: &method.name,
            path,
            pattern,
            path_span,
            arguments,
            parameters,
        };
        route.check_captures()?;
        Ok(route)
    }

    /// Every capture is bound, as one that isn't is most often a misspelt name.
    fn check_captures(&self) -> syn::Result<()> {
        // A fallback answers below its prefix, whatever that has captured.
        if self.is_fallback() {
            return Ok(());
        }
        for (wanted, capture) in self.pattern.captures.iter().enumerate() {
            let bound = self
                .arguments
                .iter()
                .any(|argument| matches!(argument, Argument::Capture { position, .. } if *position == wanted));
            if !bound {
                let name = &capture.name;
                return Err(Error::new(
                    self.path_span,
                    format!(
                        "no argument takes the capture `{name}`: add `{name}: …` to `{}`",
                        self.signature.ident
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn is_fallback(&self) -> bool {
        self.method == "fallback"
    }

    /// What no two routes have in common.
    pub(crate) fn key(&self) -> (String, String) {
        (self.method.to_uppercase(), self.pattern.key())
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// `routes.add(…);`
    pub(crate) fn registration(&self, owner: Option<&str>, callee: &Callee<'_>) -> TokenStream {
        let Attributes {
            layers,
            body_limit,
            handler_timeout,
            cfgs,
            ..
        } = self.attributes;
        let spec = self.spec(owner);
        let layers = layers
            .iter()
            .map(|layer| quote_spanned!(here(layer)=> .layer(#layer)));
        let body_limit = body_limit
            .iter()
            .map(|limit| quote_spanned!(here(limit)=> .body_limit(#limit)));
        let handler_timeout = handler_timeout
            .iter()
            .map(|timeout| quote_spanned!(here(timeout)=> .handler_timeout(#timeout)));
        let asks = self.asks();
        let description = self.description(owner);
        // A complaint about the future points to the function.
        let at = at(self.signature.ident.span());
        let (add, run) = match self.brief(callee, at) {
            Some(run) => (quote_spanned!(at=> __routes.add_brief), run),
            None => {
                let body = self.body(callee);
                let run = quote_spanned!(at=> |__resource, mut __call| async move { #body });
                (quote_spanned!(at=> __routes.add), run)
            }
        };
        quote! {
            #(#cfgs)*
            #add(
                #spec
                    #asks
                    #description
                    #(#body_limit)*
                    #(#handler_timeout)*
                    #(#layers)*,
                #run,
            );
        }
    }

    /// Asserts that the arguments are extractors, and asks what they require of the application.
    fn asks(&self) -> Option<TokenStream> {
        self.extracted().next()?;
        let asserted = self
            .extracted()
            .map(|ty| quote_spanned!(here(ty)=> ::tower_web::handler::extractor::<#ty>();));
        // Whether a type parameter has rules, only its bounds tell.
        let checked = self
            .extracted()
            .filter(|ty| cfg!(feature = "validate") && mentions(ty, self.parameters))
            .map(|ty| quote_spanned!(here(ty)=> ::tower_web::validate::checked::<#ty>();));
        let within = self.within();
        let asked = self.extracted();
        Some(quote! {
            .ask(|__requirements| {
                #[allow(unused_imports)]
                use ::tower_web::handler::AskNothing as _;
                #(#asserted)*
                #(#checked)*
                #within
                #(::tower_web::handler::Ask::<#asked>::new().require(__requirements);)*
            })
        })
    }

    /// Warns of a type with rules within an argument that isn't known to check them.
    fn within(&self) -> Option<TokenStream> {
        if !VALIDATED {
            return None;
        }
        let asked = self.extracted().flat_map(|ty| {
            let mut parts = Vec::new();
            describe::parts(ty, &mut parts);
            // The last is the argument's type itself.
            parts.pop();
            parts.into_iter().map(move |part| {
                let within = quote!(&::tower_web::validate::Within::<#ty, #part>::new());
                // Of the user's code, and not of ours: the compiler warns of nothing in another crate's macros.
                let ask = quote_spanned!(ty.span()=> rules);
                quote!((#within).#ask();)
            })
        });
        // Around it, what is deprecated may be called.
        Some(quote! {
            #[warn(deprecated)]
            {
                #[allow(unused_imports)]
                use ::tower_web::validate::{MightSkip as _, SkipsNothing as _};
                #(#asked)*
            }
        })
    }

    /// Describes the route for the document of the API.
    ///
    /// Each type that the signature is written with is asked what is known of it: whether it has a schema, whether it says
    /// what it is. That can be asked here only, where the types are written out.
    fn description(&self, owner: Option<&str>) -> Option<TokenStream> {
        if !cfg!(feature = "openapi") || self.is_fallback() {
            return None;
        }
        let about = self
            .attributes
            .above
            .about(owner, &self.signature.ident.to_string());
        let output = describe::output(&self.signature.output);
        let mut parts = Vec::new();
        let arguments: Vec<_> = self
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Capture { position, ty } => {
                    let ty = describe::owned(ty);
                    describe::parts(&ty, &mut parts);
                    let name = &self.pattern.captures[*position].name;
                    quote!(__operation.capture::<#ty>(#name);)
                }
                Argument::Extracted { ty } => {
                    describe::parts(ty, &mut parts);
                    quote! {
                        __operation.argument::<#ty>();
                        ::tower_web::openapi::Probe::<#ty>::new().refusals(__operation);
                    }
                }
            })
            .collect();
        describe::parts(&output, &mut parts);
        Some(quote! {
            .describe(#about, |__operation| {
                #[allow(unused_imports)]
                use ::tower_web::openapi::{NoFailure as _, NoSchema as _, Silent as _, Unheld as _, Unrefused as _};
                #(
                    ::tower_web::openapi::Probe::<#parts>::new().schema(__operation);
                    ::tower_web::openapi::Probe::<#parts>::new().description(__operation);
                    ::tower_web::openapi::Probe::<#parts>::new().held(__operation);
                    ::tower_web::openapi::Probe::<#parts>::new().failure(__operation);
                )*
                #(#arguments)*
                __operation.output::<#output>();
            })
        })
    }

    fn spec(&self, owner: Option<&str>) -> TokenStream {
        let path = &self.path;
        let ident = &self.signature.ident;
        let name = match owner {
            Some(owner) => format!("{owner}::{ident}"),
            None => ident.to_string(),
        };
        // Compilers before 1.88 don't say.
        let line = match ident.span().start().line {
            0 => quote!(::core::line!()),
            line => {
                let line = u32::try_from(line).unwrap_or_default();
                quote!(#line)
            }
        };
        let place = quote!(::tower_web::handler::Place::new(#name, ::core::file!(), #line));
        match self.method {
            "any" => quote!(::tower_web::handler::RouteSpec::any(#path, #place)),
            "fallback" => quote!(::tower_web::handler::RouteSpec::fallback(#path, #place)),
            method => {
                let method = Ident::new(&method.to_uppercase(), Span::call_site());
                quote!(::tower_web::handler::RouteSpec::new(::tower_web::Method::#method, #path, #place))
            }
        }
    }

    fn extracted(&self) -> impl Iterator<Item = &'a Type> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Extracted { ty } => Some(*ty),
            Argument::Capture { .. } => None,
        })
    }

    /// Calls a function that takes nothing of the request, which needn't be kept for it then.
    fn brief(&self, callee: &Callee<'_>, at: Span) -> Option<TokenStream> {
        let reply = match &self.signature.output {
            _ if !self.arguments.is_empty() => return None,
            ReturnType::Default => quote!(::tower_web::handler::reply::<()>),
            // A reply is made before there is anything to borrow from.
            ReturnType::Type(_, ty) if has_impl(ty) || borrows(ty) => return None,
            ReturnType::Type(_, ty) => {
                quote_spanned!(here(ty)=> ::tower_web::handler::reply::<#ty>)
            }
        };
        let call = self.call(callee);
        Some(quote_spanned! {at=>
            |__resource, __call| {
                let __reply = #reply(__call)?;
                ::core::option::Option::Some(async move { __reply.respond(#call) })
            }
        })
    }

    /// Calls the function with its arguments.
    fn call(&self, callee: &Callee<'_>) -> TokenStream {
        let passed = self.arguments.iter().enumerate().map(|(at, argument)| {
            let name = local(at);
            match argument {
                Argument::Capture { ty, .. } if is_str(ty) => quote!(&#name),
                _ => quote!(#name),
            }
        });
        let ident = &self.signature.ident;
        let call = match callee {
            Callee::Function(ty) => quote!(#ty::#ident(#(#passed),*)),
            Callee::Method if self.signature.receiver().is_some() => {
                quote!(Self::#ident(&*__resource, #(#passed),*))
            }
            Callee::Method => quote!(Self::#ident(#(#passed),*)),
        };
        match self.signature.asyncness {
            Some(_) => quote!(#call.await),
            None => call,
        }
    }

    /// Makes the arguments, calls the function, and makes the response.
    fn body(&self, callee: &Callee<'_>) -> TokenStream {
        let several = self.extracted().count() > 1;
        let beside = self.beside();
        let early = self
            .arguments
            .iter()
            .enumerate()
            .map(|(at, argument)| self.early(at, argument, several));
        let late = self
            .arguments
            .iter()
            .enumerate()
            .filter(|_| several)
            .map(|(at, argument)| late(at, argument));
        let call = self.call(callee);
        let respond = respond(&self.signature.output, &call);
        let import = self.extracted().next().map(|_| match VALIDATED {
            true => quote! {
                #[allow(unused_imports)]
                use ::tower_web::validate::{AskNobody as _, AskUnchecked as _};
            },
            false => quote! {
                #[allow(unused_imports)]
                use ::tower_web::handler::AskNothing as _;
            },
        });
        quote! {
            #import
            #beside
            #(#early)*
            #(#late)*
            #respond
        }
    }

    /// One assertion for each pair: at most one of them takes the body.
    fn beside(&self) -> TokenStream {
        let types: Vec<_> = self.extracted().collect();
        let pairs = types.iter().enumerate().flat_map(|(at, second)| {
            types[..at].iter().map(move |first| {
                quote_spanned!(here(second)=> ::tower_web::handler::beside::<#first, #second>();)
            })
        });
        quote!(#(#pairs)*)
    }

    fn early(&self, at: usize, argument: &Argument<'_>, several: bool) -> TokenStream {
        let name = local(at);
        match argument {
            Argument::Capture { position, ty } => {
                let capture = &self.pattern.captures[*position].name;
                let read = if is_str(ty) {
                    quote_spanned!(here(ty)=> __call.text(#position, #capture).map(::std::borrow::Cow::into_owned))
                } else {
                    quote_spanned!(here(ty)=> __call.capture::<#ty>(#position, #capture))
                };
                or_refuse(&name, &read)
            }
            Argument::Extracted { ty } if several => or_refuse(&name, &ask(ty, "early", &quote!())),
            Argument::Extracted { ty } => or_refuse(&name, &ask(ty, "argument", &quote!())),
        }
    }

    /// A function that makes the path, from the captures.
    pub(crate) fn path_builder(&self, name: &Ident, visibility: &Visibility) -> TokenStream {
        let cfgs = &self.attributes.cfgs;
        let mut parameters = Vec::new();
        let mut steps = Vec::new();
        let first = &self.pattern.literals[0];
        for argument in &self.arguments {
            if let Argument::Capture { position, ty } = argument {
                parameters.push((*position, *ty));
            }
        }
        parameters.sort_by_key(|(position, _)| *position);
        let parameters = parameters.into_iter().map(|(position, ty)| {
            let capture = &self.pattern.captures[position];
            let literal = &self.pattern.literals[position + 1];
            let name = Ident::new(&capture.name, Span::call_site());
            let step = Ident::new(
                if capture.rest { "rest" } else { "segment" },
                Span::call_site(),
            );
            let ty = if is_str(ty) {
                quote!(::std::string::String)
            } else {
                quote!(#ty)
            };
            steps.push(quote!(.#step::<#ty>(#name).literal(#literal)));
            quote!(#name: impl ::tower_web::handler::ToSegment<#ty>)
        });
        let parameters: Vec<_> = parameters.collect();
        let doc = format!("The path of `{}`: `{}`.", self.signature.ident, self.path);
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #[allow(dead_code, clippy::too_many_arguments)]
            #visibility fn #name(#(#parameters),*) -> ::std::string::String {
                ::tower_web::handler::PathBuilder::new(#first) #(#steps)* .finish()
            }
        }
    }
}

fn late(at: usize, argument: &Argument<'_>) -> TokenStream {
    let name = local(at);
    match argument {
        Argument::Capture { .. } => TokenStream::new(),
        Argument::Extracted { ty } => or_refuse(&name, &ask(ty, "late", &quote!(, #name))),
    }
}

/// Calls a method of `Ask<T>`, which fails to compile nowhere: what is wrong with the type is said once, by the assertion.
fn ask(ty: &Type, method: &str, further: &TokenStream) -> TokenStream {
    let method = match VALIDATED {
        true => format_ident!("checked_{method}", span = Span::call_site()),
        false => Ident::new(method, Span::call_site()),
    };
    quote!(::tower_web::handler::Ask::<#ty>::new().#method(&mut __call #further).await)
}

/// Whether arguments are validated.
const VALIDATED: bool = cfg!(feature = "validate");

/// Whether a type has one of these names in it.
fn mentions(ty: &Type, names: &[Ident]) -> bool {
    fn any(tokens: TokenStream, names: &[Ident]) -> bool {
        tokens.into_iter().any(|token| match token {
            proc_macro2::TokenTree::Ident(ident) => names.contains(&ident),
            proc_macro2::TokenTree::Group(group) => any(group.stream(), names),
            _ => false,
        })
    }
    any(ty.to_token_stream(), names)
}

fn or_refuse(name: &Ident, result: &TokenStream) -> TokenStream {
    quote! {
        let #name = match #result {
            ::core::result::Result::Ok(__argument) => __argument,
            ::core::result::Result::Err(__problem) => return __call.refuse(__problem),
        };
    }
}

fn respond(output: &ReturnType, call: &TokenStream) -> TokenStream {
    match output {
        ReturnType::Default => quote!(__call.respond::<()>(#call)),
        ReturnType::Type(_, ty) if has_impl(ty) => quote_spanned!(here(ty)=> __call.respond(#call)),
        ReturnType::Type(_, ty) => quote_spanned!(here(ty)=> __call.respond::<#ty>(#call)),
    }
}

/// Whether a type can't be named elsewhere.
pub(crate) fn has_impl(ty: &Type) -> bool {
    fn any(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            proc_macro2::TokenTree::Ident(ident) => ident == "impl",
            proc_macro2::TokenTree::Group(group) => any(group.stream()),
            _ => false,
        })
    }
    any(ty.to_token_stream())
}

fn local(at: usize) -> Ident {
    Ident::new(&format!("__argument{at}"), Span::call_site())
}

/// The place of these tokens, for complaints; names are looked up as in all the generated code.
pub(crate) fn here(tokens: &impl Spanned) -> Span {
    at(tokens.span())
}

fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}
