//! `#[get("/path")] async fn name(…)`, and `#[main]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, Error, FnArg, Ident, ItemFn, Lifetime, ReturnType, Signature, Type};

use crate::route::{Attributes, Callee, Method, Route, check, has_impl, here, is_str};

/// Whatever is wrong, the function stays, so that nothing else is complained about.
pub(crate) fn expand(name: &str, arguments: TokenStream, item: TokenStream) -> TokenStream {
    try_expand(name, arguments, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#item #error)
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
        .map(|method| Route::new("", method, &attributes, &function.sig))
        .collect::<syn::Result<Vec<_>>>()?;
    Ok(expand_function(&function, &attributes, &routes))
}

/// A unit struct: a [`Handler`], and by `Deref` a pointer to the function.
fn expand_function(
    function: &ItemFn,
    attributes: &Attributes,
    routes: &[Route<'_>],
) -> TokenStream {
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let cfgs = &attributes.cfgs;
    let docs = function
        .attrs
        .iter()
        .filter(|attribute| is_for_the_struct(attribute));
    let registrations = routes
        .iter()
        .map(|route| route.registration(None, &Callee::Function));
    let builder = routes
        .iter()
        .find(|route| !route.is_fallback())
        .map(|route| {
            let name = Ident::new("path", Span::call_site());
            route.path_builder(&name, visibility)
        });
    let deref = deref(&function.sig);
    quote! {
        #(#docs)*
        #(#cfgs)*
        #[allow(non_camel_case_types)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #ident;

        #(#cfgs)*
        const _: () = {
            impl #ident {
                #builder
            }

            #function

            impl ::core::ops::Deref for #ident {
                #deref
            }

            impl ::tower_web::handler::Handler for #ident {
                fn register(__routes: &mut ::tower_web::handler::Routes<()>) {
                    #(#registrations)*
                }
            }
        };
    }
}

fn is_for_the_struct(attribute: &Attribute) -> bool {
    ["doc", "deprecated"]
        .iter()
        .any(|name| attribute.path().is_ident(name))
}

/// `type Target = fn(…) -> …; fn deref(&self) …`
fn deref(signature: &Signature) -> TokenStream {
    let ident = &signature.ident;
    let lifetime = Lifetime::new("'a", Span::call_site());
    let mut borrows = false;
    let mut types = Vec::new();
    let mut names = Vec::new();
    for (at, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(typed) = input else { continue };
        let mut ty = (*typed.ty).clone();
        if let (true, Type::Reference(reference)) = (is_str(&ty), &mut ty) {
            reference.lifetime = Some(lifetime.clone());
            borrows = true;
        }
        types.push(ty);
        names.push(Ident::new(&format!("__argument{at}"), Span::call_site()));
    }
    let unnamed = matches!(&signature.output, ReturnType::Type(_, ty) if has_impl(ty));
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        // A type that has no name is told as what it becomes.
        ReturnType::Type(..) if unnamed => quote!(::tower_web::Response),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let call = quote!(#ident(#(#names),*));
    let is_async = signature.asyncness.is_some();
    let call = match (is_async, unnamed) {
        (true, true) => {
            quote!(async move { ::tower_web::IntoResponse::into_response(#call.await) })
        }
        (false, true) => quote!(::tower_web::IntoResponse::into_response(#call)),
        (_, false) => call,
    };
    let (binder, bound) = if borrows {
        (quote!(for<'a>), quote!(+ 'a))
    } else {
        (quote!(), quote!())
    };
    let (returned, call) = if is_async {
        (
            quote! {
                ::core::pin::Pin<::std::boxed::Box<
                    dyn ::core::future::Future<Output = #output> + ::core::marker::Send #bound
                >>
            },
            quote!(::std::boxed::Box::pin(#call)),
        )
    } else {
        (output, call)
    };
    let at = here(ident);
    let call = quote_spanned!(at=> #call);
    quote! {
        type Target = #binder fn(#(#types),*) -> #returned;

        fn deref(&self) -> &Self::Target {
            const CALL: #binder fn(#(#types),*) -> #returned = |#(#names),*| #call;
            &CALL
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
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            async fn __main() #output #block
            ::tower_web::block_on(__main())
        }
    })
}
