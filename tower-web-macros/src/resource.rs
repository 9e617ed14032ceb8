//! `#[resource("/prefix")] impl T { … }`.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ImplItem, Item, ItemImpl, LitStr, parse_quote};

use crate::pattern::Pattern;
use crate::route::{Attributes, Callee, Route, check, here, strip};

/// The attribute's argument: where the resource stands, by default at the root.
pub(crate) struct Prefix {
    path: String,
}

impl Parse for Prefix {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Ok(Self {
                path: String::new(),
            });
        }
        let literal: LitStr = input.parse().map_err(|error| {
            Error::new(
                error.span(),
                "write the prefix as text: `#[resource(\"/users\")]`",
            )
        })?;
        let path = literal.value();
        let pattern =
            Pattern::parse(&path).map_err(|message| Error::new(literal.span(), message))?;
        if pattern.captures.iter().any(|capture| capture.rest) {
            return Err(Error::new(
                literal.span(),
                "nothing can stand behind `{*…}`, so it can't be in a prefix",
            ));
        }
        Ok(Self { path })
    }
}

/// A method that is a route.
struct Method {
    at: usize,
    attributes: Attributes,
}

/// Whatever is wrong, the methods stay, so that nothing else is complained about.
pub(crate) fn expand(prefix: &Prefix, item: Item) -> TokenStream {
    try_expand(prefix, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        let mut item = item;
        if let Item::Impl(item) = &mut item {
            strip(&mut item.attrs);
            for method in &mut item.items {
                if let ImplItem::Fn(method) = method {
                    strip(&mut method.attrs);
                }
            }
        }
        quote!(#item #error)
    })
}

fn try_expand(prefix: &Prefix, item: Item) -> syn::Result<TokenStream> {
    let mut item = match item {
        Item::Impl(item) => item,
        other => {
            return Err(Error::new_spanned(
                head(&other),
                "`#[resource]` stands above an `impl` block, whose methods are the routes",
            ));
        }
    };
    if let Some((path, _)) = &item.trait_ {
        return Err(Error::new_spanned(
            path,
            "`#[resource]` stands above an `impl` of the type itself, not of a trait",
        ));
    }
    let layers = take_layers(&mut item)?;
    let (methods, mut errors) = take_methods(&mut item);
    let (registrations, builders) = expand_methods(prefix, &item, &methods, &mut errors);
    if let Some(error) = errors {
        // The methods stay, so that nothing else is complained about.
        let error = error.into_compile_error();
        return Ok(quote!(#item #error));
    }

    let layers = layers
        .iter()
        .map(|layer| quote_spanned!(here(layer)=> __routes.layer(#layer);));
    let mut generics = item.generics.clone();
    if !generics.params.is_empty() {
        // Nobody should have to repeat what every resource needs.
        generics
            .make_where_clause()
            .predicates
            .push(parse_quote!(Self: ::core::marker::Send + ::core::marker::Sync + 'static));
    }
    let ty = &item.self_ty;
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (own_generics, _, own_where) = item.generics.split_for_impl();
    let cfgs: Vec<_> = item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .collect();
    Ok(quote! {
        #item

        #(#cfgs)*
        impl #own_generics #ty #own_where {
            #(#builders)*
        }

        #(#cfgs)*
        #[automatically_derived]
        impl #impl_generics ::tower_web::handler::Resource for #ty #where_clause {
            // Whoever calls what is deprecated is warned; a request isn't.
            #[allow(deprecated)]
            fn register(__routes: &mut ::tower_web::handler::Routes<Self>) {
                #(#layers)*
                #(#registrations)*
            }
        }
    })
}

/// The first token of an item, to point at.
fn head(item: &Item) -> TokenStream {
    let tokens = item.to_token_stream();
    tokens
        .into_iter()
        .find(|token| matches!(token, proc_macro2::TokenTree::Ident(_)))
        .into_iter()
        .collect()
}

fn take_layers(item: &mut ItemImpl) -> syn::Result<Vec<Expr>> {
    let mut layers = Vec::new();
    let mut others = Vec::new();
    for attribute in item.attrs.drain(..) {
        if attribute.path().is_ident("layer") {
            layers.push(attribute.parse_args()?);
        } else {
            others.push(attribute);
        }
    }
    item.attrs = others;
    Ok(layers)
}

/// The methods that are routes, with our attributes taken off them.
fn take_methods(item: &mut ItemImpl) -> (Vec<Method>, Option<Error>) {
    let mut methods = Vec::new();
    let mut errors = None;
    for (at, item) in item.items.iter_mut().enumerate() {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        match Attributes::take(&mut function.attrs) {
            Ok(attributes) if attributes.methods.is_empty() => {}
            Ok(attributes) => match check(&function.sig) {
                Ok(()) => methods.push(Method { at, attributes }),
                Err(error) => add(&mut errors, error),
            },
            Err(error) => add(&mut errors, error),
        }
    }
    (methods, errors)
}

fn expand_methods(
    prefix: &Prefix,
    item: &ItemImpl,
    methods: &[Method],
    errors: &mut Option<Error>,
) -> (Vec<TokenStream>, Vec<TokenStream>) {
    let owner = item.self_ty.to_token_stream().to_string().replace(' ', "");
    let parameters: Vec<_> = item
        .generics
        .type_params()
        .map(|parameter| parameter.ident.clone())
        .collect();
    let mut registrations = Vec::new();
    let mut builders = Vec::new();
    let mut taken: BTreeMap<(String, String), (String, bool)> = BTreeMap::new();
    for method in methods {
        let ImplItem::Fn(function) = &item.items[method.at] else {
            continue;
        };
        let mut built = false;
        for own in &method.attributes.methods {
            let route = match Route::new(
                &prefix.path,
                own,
                &method.attributes,
                &function.sig,
                &parameters,
            ) {
                Ok(route) => route,
                Err(error) => {
                    add(errors, error);
                    continue;
                }
            };
            // Of two that stand under different conditions, only one may be there. If both are, the
            // application reports it.
            let conditional = !method.attributes.cfgs.is_empty();
            let name = function.sig.ident.to_string();
            if let Some((other, other_conditional)) = taken.insert(route.key(), (name, conditional))
            {
                if !(conditional || other_conditional) {
                    add(errors, conflict(&route, &other));
                }
            }
            registrations.push(route.registration(Some(&owner), &Callee::Method));
            if !built && !route.is_fallback() {
                built = true;
                let name = format_ident!("{}_path", function.sig.ident, span = Span::call_site());
                builders.push(route.path_builder(&name, &function.vis));
            }
        }
    }
    (registrations, builders)
}

fn conflict(route: &Route<'_>, other: &str) -> Error {
    let what = match &*route.key().0 {
        "FALLBACK" => "the fallback".to_owned(),
        "ANY" => format!("any method of `{}`", route.path()),
        method => format!("`{method} {}`", route.path()),
    };
    Error::new(
        route.path_span,
        format!("{what} is answered by `{other}` already"),
    )
}

fn add(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}
