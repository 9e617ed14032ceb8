//! Which arguments a function has, what each is bound to, and which it can't have.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, Pat, PathArguments, ReturnType, Safety, Signature, Type};

use crate::pattern::Pattern;

pub(super) enum Argument<'a> {
    /// Bound by name, to the capture at this position.
    Capture { position: usize, ty: &'a Type },
    /// Bound by type.
    Extracted { ty: &'a Type },
}

/// Which arguments take captures, and which come by type.
pub(super) fn bind<'a>(
    signature: &'a Signature,
    pattern: &Pattern,
) -> syn::Result<Vec<Argument<'a>>> {
    let mut arguments = Vec::new();
    for input in &signature.inputs {
        let typed = match input {
            FnArg::Receiver(_) => continue,
            FnArg::Typed(typed) => typed,
        };
        let ty = &*typed.ty;
        let position = match &*typed.pat {
            Pat::Ident(pat) => {
                let name = pat.ident.to_string();
                let name = name.strip_prefix("r#").unwrap_or(&name);
                let is = |wanted: &str| {
                    pattern
                        .captures
                        .iter()
                        .position(|capture| capture.name == wanted)
                };
                is(name).or_else(|| is(name.strip_prefix('_')?))
            }
            _ => None,
        };
        arguments.push(match position {
            Some(position) => Argument::Capture { position, ty },
            None if is_str(ty) => {
                return Err(Error::new_spanned(
                    ty,
                    "only a capture can be a `&str`: take the body as `String`, or name a capture of the path as this argument",
                ));
            }
            None => Argument::Extracted { ty },
        });
    }
    Ok(arguments)
}

/// Whether a type is written as `&str`.
pub(crate) fn is_str(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            matches!(&*reference.elem, Type::Path(path) if path.path.is_ident("str"))
        }
        _ => false,
    }
}

/// Refuses what can't be a route.
pub(crate) fn check(signature: &Signature) -> syn::Result<()> {
    if let Some(token) = signature
        .generics
        .lt_token
        .filter(|_| signature.generics.type_params().next().is_some())
    {
        return Err(Error::new(
            token.span(),
            "a route has no type parameters of its own: its arguments come from requests, which can't choose them",
        ));
    }
    if let Safety::Unsafe(token) = &signature.safety {
        return Err(Error::new(
            token.span,
            "a route is called for every request that there is: it can't be unsafe",
        ));
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        if let Some(text) = borrowed_text(ty) {
            return Err(Error::new_spanned(
                text,
                "a response outlives what it was made of: return a `String` or `Bytes`, or what is `&'static`",
            ));
        }
    }
    for input in &signature.inputs {
        match input {
            FnArg::Typed(typed) => {
                if let Type::ImplTrait(ty) = &*typed.ty {
                    return Err(Error::new_spanned(
                        ty,
                        "a route's arguments have types, as `Json<User>`, and not `impl`",
                    ));
                }
            }
            FnArg::Receiver(receiver) => check_receiver(receiver)?,
        }
    }
    Ok(())
}

/// Text or bytes that are borrowed from the resource or an argument, where they are the response itself.
fn borrowed_text(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Reference(reference) => {
            let is_static = matches!(&reference.lifetime, Some(own) if own.ident == "static");
            let is_text = match &*reference.elem {
                Type::Path(path) => path.path.is_ident("str"),
                Type::Slice(_) => true,
                _ => false,
            };
            (is_text && !is_static).then_some(ty)
        }
        Type::Tuple(parts) => parts.elems.iter().find_map(borrowed_text),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else {
                return None;
            };
            if last.ident != "Option" && last.ident != "Result" {
                return None;
            }
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => borrowed_text(ty),
                _ => None,
            })
        }
        _ => None,
    }
}

/// Whether a type is written with a lifetime that isn't `'static`.
pub(super) fn borrows(ty: &Type) -> bool {
    fn any(tokens: TokenStream) -> bool {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let is_borrowed = match token {
                TokenTree::Punct(punct) if punct.as_char() == '&' => {
                    !matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '\'')
                }
                TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                    !matches!(tokens.peek(), Some(TokenTree::Ident(name)) if name == "static")
                }
                TokenTree::Group(group) => any(group.stream()),
                _ => false,
            };
            if is_borrowed {
                return true;
            }
        }
        false
    }
    any(ty.to_token_stream())
}

fn check_receiver(receiver: &syn::Receiver) -> syn::Result<()> {
    use syn::ReceiverKind;

    match &receiver.kind {
        ReceiverKind::Reference(_, _, None) => Ok(()),
        ReceiverKind::Reference(_, _, Some(token)) => Err(Error::new(
            token.span(),
            "all requests share the resource: take `&self`, and change what changes through a lock or an atomic",
        )),
        ReceiverKind::Value | ReceiverKind::Typed(..) => Err(Error::new(
            receiver.self_token.span(),
            "all requests share the resource: take `&self`",
        )),
        _ => Ok(()),
    }
}
