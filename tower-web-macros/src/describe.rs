//! What the document of an application's API is told of a route: its signature, and what is written above it.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::{
    Attribute, Expr, GenericArgument, Lit, Meta, PathArguments, ReturnType, Type, parse_quote,
};

use crate::route::{has_impl, is_str};

/// What stands above a function.
#[derive(Default)]
pub(crate) struct Above {
    docs: String,
    is_deprecated: bool,
}

impl Above {
    pub(crate) fn new(attributes: &[Attribute]) -> Self {
        let lines = attributes.iter().filter_map(line);
        Self {
            docs: lines.collect::<Vec<_>>().join("\n"),
            is_deprecated: attributes
                .iter()
                .any(|attribute| attribute.path().is_ident("deprecated")),
        }
    }

    /// `::tower_web::openapi::About { … }`.
    pub(crate) fn about(&self, owner: Option<&str>, function: &str) -> TokenStream {
        let Self {
            docs,
            is_deprecated,
        } = self;
        let resource = match owner {
            Some(owner) => quote!(::core::option::Option::Some(#owner)),
            None => quote!(::core::option::Option::None),
        };
        quote! {
            ::tower_web::openapi::About {
                package: ::core::option_env!("CARGO_PKG_NAME"),
                version: ::core::option_env!("CARGO_PKG_VERSION"),
                resource: #resource,
                function: #function,
                docs: #docs,
                is_deprecated: #is_deprecated,
            }
        }
    }
}

/// A line of documentation, without the space that `///` leaves before it.
fn line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        Expr::Lit(literal) if pair.path.is_ident("doc") => match &literal.lit {
            Lit::Str(text) => {
                let text = text.value();
                Some(text.strip_prefix(' ').unwrap_or(&text).to_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

/// The type that a function returns, with `Opaque` in the place of what can't be named.
pub(crate) fn output(output: &ReturnType) -> Type {
    match output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => named(ty),
    }
}

/// An argument's type, which may be written as `&str` where it takes a capture.
pub(crate) fn owned(ty: &Type) -> Type {
    match is_str(ty) {
        true => parse_quote!(::std::string::String),
        false => ty.clone(),
    }
}

fn named(ty: &Type) -> Type {
    if !has_impl(ty) {
        return ty.clone();
    }
    let mut ty = ty.clone();
    match &mut ty {
        Type::Tuple(tuple) => {
            for element in &mut tuple.elems {
                *element = named(element);
            }
        }
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                if let PathArguments::AngleBracketed(arguments) = &mut segment.arguments {
                    for argument in &mut arguments.args {
                        if let GenericArgument::Type(inner) = argument {
                            *inner = named(inner);
                        }
                    }
                }
            }
        }
        _ => return parse_quote!(::tower_web::openapi::Opaque),
    }
    ty
}

/// The type and all that it is written with: `Json<Vec<User>>`, `Vec<User>`, `User`.
pub(crate) fn parts(ty: &Type, found: &mut Vec<Type>) {
    match ty {
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|element| parts(element, found)),
        Type::Array(array) => parts(&array.elem, found),
        Type::Paren(inner) => return parts(&inner.elem, found),
        Type::Group(inner) => return parts(&inner.elem, found),
        // Without a size, it has its schema within another only: `Cow<'static, str>`.
        Type::Path(path) if path.path.is_ident("str") => return,
        Type::Path(path) => {
            for segment in &path.path.segments {
                if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                    for argument in &arguments.args {
                        if let GenericArgument::Type(inner) = argument {
                            parts(inner, found);
                        }
                    }
                }
            }
        }
        Type::Reference(_) => {}
        // Of any other sort, nothing is known.
        _ => return,
    }
    let text = |ty: &Type| ty.to_token_stream().to_string();
    let own = text(ty);
    if found.iter().all(|other| text(other) != own) {
        found.push(ty.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_taken_apart_from_the_inside() {
        let mut found = Vec::new();
        parts(&parse_quote!(Result<Json<Vec<User>>, Error>), &mut found);
        let written: Vec<_> = found
            .iter()
            .map(|ty| ty.to_token_stream().to_string().replace(' ', ""))
            .collect();
        assert_eq!(
            written,
            [
                "User",
                "Vec<User>",
                "Json<Vec<User>>",
                "Error",
                "Result<Json<Vec<User>>,Error>"
            ]
        );
    }

    #[test]
    fn what_cant_be_named_is_replaced() {
        let ty = output(&parse_quote!(-> Result<Sse<impl Stream<Item = Event>>, Error>));
        let wanted: Type = parse_quote!(Result<Sse<::tower_web::openapi::Opaque>, Error>);
        assert_eq!(
            ty.to_token_stream().to_string(),
            wanted.to_token_stream().to_string()
        );
    }

    #[test]
    fn the_documentation_is_read_as_it_is_written() {
        let above = Above::new(&[
            parse_quote!(#[doc = " Fetch."]),
            parse_quote!(#[doc = "     code"]),
            parse_quote!(#[deprecated]),
        ]);
        assert_eq!(above.docs, "Fetch.\n    code");
        assert!(above.is_deprecated);
    }
}
