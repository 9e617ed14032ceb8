//! `#[get("/path")] async fn name(…)`, and `#[main]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Error, FnArg, Ident, ItemFn, Lifetime, Pat, ReturnType, Signature, Type};

use crate::route::{Attributes, Callee, Method, Route, check, has_impl, here, is_str, strip};

/// Whatever is wrong, the function stays, so that nothing else is complained about.
pub(crate) fn expand(name: &str, arguments: TokenStream, item: TokenStream) -> TokenStream {
    try_expand(name, arguments, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        match syn::parse2::<ItemFn>(item.clone()) {
            Ok(mut function) => {
                strip(&mut function.attrs);
                quote!(#function #error)
            }
            Err(_) => quote!(#item #error),
        }
    })
}

fn try_expand(name: &str, arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(
            error.span(),
            format!("`#[{name}]` stands above a function: {error}"),
        )
    })?;
    if let Some(receiver) = function.sig.receiver() {
        return Err(Error::new(
            receiver.self_token.span,
            "a method is a route of its resource: write `#[resource]` above the `impl`",
        ));
    }
    let mut attributes = Attributes::take(&mut function.attrs)?;
    attributes
        .methods
        .insert(0, Method::new(name, Span::call_site(), arguments)?);
    check(&function.sig)?;
    if let Some(lifetime) = function.sig.generics.lifetimes().next() {
        return Err(Error::new_spanned(
            lifetime,
            "a route has no lifetimes of its own: leave them out",
        ));
    }
    let routes = attributes
        .methods
        .iter()
        .map(|method| Route::new("", method, &attributes, &function.sig, &[]))
        .collect::<syn::Result<Vec<_>>>()?;
    Ok(expand_function(&function, &attributes, &routes))
}

/// An asynchronous function stays one, whose future has a type of its own: a `Handler`. So the function's name is no more
/// than a function's, and may be a variable's, too.
///
/// A function that isn't asynchronous has no future to tell it by. It becomes a unit struct: a `Handler`, and by `Deref` a
/// pointer to the function.
fn expand_function(
    function: &ItemFn,
    attributes: &Attributes,
    routes: &[Route<'_>],
) -> TokenStream {
    let ident = &function.sig.ident;
    let is_async = function.sig.asyncness.is_some();
    let handler = if is_async {
        format_ident!("__{ident}_route", span = Span::call_site())
    } else {
        ident.clone()
    };
    let cfgs = &attributes.cfgs;
    let registrations = routes
        .iter()
        .map(|route| route.registration(None, &Callee::Function(&handler)));
    let builder = routes
        .iter()
        .find(|route| !route.is_fallback())
        .map(|route| {
            let name = format_ident!("{}_path", ident, span = Span::call_site());
            route.path_builder(&name, &function.vis)
        });
    let parameters = Parameters::new(&function.sig);
    let definition = if is_async {
        future(function, &handler, cfgs, &parameters)
    } else {
        pointer(function, cfgs, &parameters)
    };
    let lifetime = (is_async && parameters.borrow).then(|| quote!(<'_>));
    quote! {
        #definition

        #builder

        #(#cfgs)*
        #[automatically_derived]
        impl ::tower_web::handler::Handler for #handler #lifetime {
            // Whoever calls what is deprecated is warned; a request isn't.
            #[allow(deprecated)]
            fn register(__routes: &mut ::tower_web::handler::Routes<()>) {
                #(#registrations)*
            }
        }
    }
}

/// The parameters of a function, without its patterns.
struct Parameters {
    names: Vec<Ident>,
    types: Vec<Type>,
    /// Whether any is a `&str`, which is written with the lifetime `'a`.
    borrow: bool,
}

impl Parameters {
    fn new(signature: &Signature) -> Self {
        let mut own = Self {
            names: Vec::new(),
            types: Vec::new(),
            borrow: false,
        };
        for (at, input) in signature.inputs.iter().enumerate() {
            let FnArg::Typed(typed) = input else { continue };
            let mut ty = (*typed.ty).clone();
            if let (true, Type::Reference(reference)) = (is_str(&ty), &mut ty) {
                reference.lifetime = Some(Lifetime::new("'a", Span::call_site()));
                own.borrow = true;
            }
            own.types.push(ty);
            own.names.push(match &*typed.pat {
                // The documentation shows it.
                Pat::Ident(pat) if pat.subpat.is_none() => pat.ident.clone(),
                _ => Ident::new(&format!("__argument{at}"), Span::call_site()),
            });
        }
        own
    }

    /// `'a` in a list of generics, if it is needed.
    fn generics(&self) -> TokenStream {
        if self.borrow { quote!(<'a>) } else { quote!() }
    }
}

/// What the function returns, and whether that had to be made a `Response`, as it can't be named.
fn output(signature: &Signature) -> (TokenStream, bool) {
    match &signature.output {
        ReturnType::Default => (quote!(()), false),
        ReturnType::Type(_, ty) if has_impl(ty) => (quote!(::tower_web::Response), true),
        ReturnType::Type(_, ty) => (quote!(#ty), false),
    }
}

fn is_for_the_outside(attribute: &Attribute) -> bool {
    ["doc", "deprecated"]
        .iter()
        .any(|name| attribute.path().is_ident(name))
}

fn future(
    function: &ItemFn,
    handler: &Ident,
    cfgs: &[Attribute],
    parameters: &Parameters,
) -> TokenStream {
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let Parameters { names, types, .. } = parameters;
    let generics = parameters.generics();
    let bound = parameters.borrow.then(|| quote!(+ 'a));
    let (output, unnamed) = output(&function.sig);
    let outside = function
        .attrs
        .iter()
        .filter(|attribute| is_for_the_outside(attribute));
    let mut inside = function.clone();
    inside.vis = syn::Visibility::Inherited;
    inside
        .attrs
        .retain(|attribute| !is_for_the_outside(attribute) && !attribute.path().is_ident("cfg"));
    let call = quote!(#handler::#ident(#(#names),*));
    let call = if unnamed {
        quote!(async move { ::tower_web::IntoResponse::into_response(#call.await) })
    } else {
        call
    };
    let boxed = quote_spanned!(here(ident)=> ::std::boxed::Box::pin(#call));
    quote! {
        #(#outside)*
        #(#cfgs)*
        #[allow(clippy::too_many_arguments)] // What is to be said of the function is said of the one inside.
        #visibility fn #ident #generics(#(#names: #types),*) -> #handler #generics {
            #handler { future: #boxed }
        }

        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #[must_use = "futures do nothing unless awaited"]
        #visibility struct #handler #generics {
            future: ::core::pin::Pin<::std::boxed::Box<
                dyn ::core::future::Future<Output = #output> + ::core::marker::Send #bound
            >>,
        }

        #(#cfgs)*
        impl #generics #handler #generics {
            #inside
        }

        #(#cfgs)*
        #[automatically_derived]
        impl #generics ::core::future::Future for #handler #generics {
            type Output = #output;

            fn poll(
                mut self: ::core::pin::Pin<&mut Self>,
                context: &mut ::core::task::Context<'_>,
            ) -> ::core::task::Poll<Self::Output> {
                self.future.as_mut().poll(context)
            }
        }

        #(#cfgs)*
        #[automatically_derived]
        impl #generics ::core::fmt::Debug for #handler #generics {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                formatter.write_str(::core::stringify!(#ident))
            }
        }
    }
}

fn pointer(function: &ItemFn, cfgs: &[Attribute], parameters: &Parameters) -> TokenStream {
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let Parameters { names, types, .. } = parameters;
    let binder = parameters.borrow.then(|| quote!(for<'a>));
    let (output, unnamed) = output(&function.sig);
    let outside = function
        .attrs
        .iter()
        .filter(|attribute| is_for_the_outside(attribute));
    let mut inside = function.clone();
    inside.vis = syn::Visibility::Inherited;
    inside
        .attrs
        .retain(|attribute| !is_for_the_outside(attribute) && !attribute.path().is_ident("cfg"));
    let call = quote!(#ident::#ident(#(#names),*));
    let call = if unnamed {
        quote!(::tower_web::IntoResponse::into_response(#call))
    } else {
        call
    };
    quote! {
        #(#outside)*
        #(#cfgs)*
        #[allow(non_camel_case_types)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #ident;

        #(#cfgs)*
        impl #ident {
            #inside
        }

        #(#cfgs)*
        #[automatically_derived]
        impl ::core::ops::Deref for #ident {
            type Target = #binder fn(#(#types),*) -> #output;

            fn deref(&self) -> &Self::Target {
                const CALL: #binder fn(#(#types),*) -> #output = |#(#names),*| #call;
                &CALL
            }
        }
    }
}

pub(crate) fn expand_main(mut function: ItemFn) -> syn::Result<TokenStream> {
    if function.sig.asyncness.take().is_none() {
        return Err(Error::new_spanned(
            function.sig.fn_token,
            "`#[tower_web::main]` is for an asynchronous function: write `async fn`",
        ));
    }
    if let Some(input) = function.sig.inputs.first() {
        return Err(Error::new_spanned(input, "`main` takes no arguments"));
    }
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = &function;
    let output = &sig.output;
    // A program's `main` says in words what went wrong; another function's caller wants to know it.
    if sig.ident == "main" {
        return Ok(quote! {
            #(#attrs)*
            #vis fn main() -> ::std::process::ExitCode {
                async fn __main() #output #block
                ::tower_web::exit(::tower_web::block_on(__main()))
            }
        });
    }
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            async fn __main() #output #block
            ::tower_web::block_on(__main())
        }
    })
}
