//! `#[derive(Problem)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Ident, Lit, LitInt, LitStr, Member,
    Meta,
};

use crate::route::here;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let name = &input.ident;
    let kinds = match &input.data {
        Data::Struct(data) => vec![Kind::new(name, quote!(Self), &input.attrs, &data.fields)?],
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let ident = &variant.ident;
                Kind::new(ident, quote!(Self::#ident), &variant.attrs, &variant.fields)
            })
            .collect::<syn::Result<_>>()?,
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a problem is an enum of what may go wrong, or a struct",
            ));
        }
    };
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    // A reference to an empty enum has no arms, but isn't empty itself.
    let reference = match kinds.is_empty() {
        true => quote!(*self),
        false => quote!(self),
    };
    let problems = kinds.iter().map(Kind::problem);
    let texts = kinds.iter().map(Kind::text);
    let sources = kinds.iter().map(Kind::source);
    let conversions = kinds.iter().filter_map(|kind| kind.conversion(input));
    let description = cfg!(feature = "openapi").then(|| {
        let told = kinds.iter().map(Kind::description);
        quote! {
            #[automatically_derived]
            impl #impl_generics ::tower_web::openapi::Describe for #name #type_generics #where_clause {
                fn response(operation: &mut ::tower_web::openapi::Operation<'_>) {
                    #(#told)*
                }
            }
        }
    });
    Ok(quote! {
        #description

        #[automatically_derived]
        #[allow(non_shorthand_field_patterns)]
        impl #impl_generics ::tower_web::problem::IntoProblem for #name #type_generics #where_clause {
            fn into_problem(self) -> ::tower_web::Problem {
                match self { #(#problems)* }
            }
        }

        #[automatically_derived]
        #[allow(non_shorthand_field_patterns)]
        impl #impl_generics ::tower_web::IntoResponse for #name #type_generics #where_clause {
            fn into_response(self) -> ::tower_web::Response {
                ::tower_web::IntoResponse::into_response(
                    ::tower_web::problem::IntoProblem::into_problem(self),
                )
            }
        }

        #[automatically_derived]
        #[allow(non_shorthand_field_patterns)]
        impl #impl_generics ::std::fmt::Display for #name #type_generics #where_clause {
            #[allow(unused_variables)]
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match #reference { #(#texts)* }
            }
        }

        #[automatically_derived]
        #[allow(non_shorthand_field_patterns)]
        impl #impl_generics ::std::error::Error for #name #type_generics #where_clause {
            fn source(&self) -> ::std::option::Option<&(dyn ::std::error::Error + 'static)> {
                #[allow(unused_imports)]
                use ::tower_web::problem::AsCause as _;
                match #reference { #(#sources)* }
            }
        }

        #(#conversions)*
    })
}

/// What `#[problem(…)]` says.
#[derive(Default)]
struct Settings {
    status: Option<LitInt>,
    title: Option<LitStr>,
    detail: Option<LitStr>,
    kind: Option<LitStr>,
    is_hidden: bool,
}

impl Settings {
    fn take(name: &Ident, attributes: &[Attribute]) -> syn::Result<Self> {
        let mut settings = Self::default();
        for attribute in attributes {
            if attribute.path().is_ident("problem") {
                attribute.parse_nested_meta(|meta| {
                    let key = meta
                        .path
                        .get_ident()
                        .map(Ident::to_string)
                        .unwrap_or_default();
                    match &*key {
                        "status" => settings.status = Some(meta.value()?.parse()?),
                        "title" => settings.title = Some(meta.value()?.parse()?),
                        "detail" => settings.detail = Some(meta.value()?.parse()?),
                        "type" => settings.kind = Some(meta.value()?.parse()?),
                        "hide" => settings.is_hidden = true,
                        _ => {
                            return Err(meta.error(
                                "there are `status`, `title`, `detail`, `type` and `hide`",
                            ));
                        }
                    }
                    Ok(())
                })?;
            }
        }
        settings.check(name)?;
        Ok(settings)
    }

    fn check(&self, name: &Ident) -> syn::Result<()> {
        let Some(status) = &self.status else {
            return Err(Error::new(
                name.span(),
                format!(
                    "which status does `{name}` have? write `#[problem(status = 404)]` above it"
                ),
            ));
        };
        if !(400..600).contains(&status.base10_parse::<u16>().unwrap_or_default()) {
            return Err(Error::new(
                status.span(),
                "a problem's status is one of 400 to 599",
            ));
        }
        match (&self.detail, self.is_hidden) {
            (Some(detail), true) => Err(Error::new(
                detail.span(),
                "what is hidden has no detail: nothing but status and title is sent",
            )),
            _ => Ok(()),
        }
    }
}

/// A field, and the name that it is bound to.
struct Part<'a> {
    field: &'a Field,
    member: Member,
    bound: Ident,
    /// Stands for `From`, and is the source.
    is_from: bool,
    is_source: bool,
    is_skipped: bool,
}

impl<'a> Part<'a> {
    fn new(index: usize, field: &'a Field) -> syn::Result<Self> {
        let has = |name| {
            field
                .attrs
                .iter()
                .find(|attribute| attribute.path().is_ident(name))
        };
        let mut is_skipped = false;
        for attribute in field
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("problem"))
        {
            attribute.parse_nested_meta(|meta| match meta.path.is_ident("skip") {
                true => {
                    is_skipped = true;
                    Ok(())
                }
                false => Err(meta.error("of a field there is `skip`: it isn't sent")),
            })?;
        }
        let is_from = has("from").is_some();
        let named_source = field.ident.as_ref().is_some_and(|ident| ident == "source");
        Ok(Self {
            field,
            member: match &field.ident {
                Some(ident) => Member::Named(ident.clone()),
                None => Member::Unnamed(index.into()),
            },
            bound: field
                .ident
                .clone()
                .unwrap_or_else(|| format_ident!("_{index}")),
            is_from,
            is_source: is_from || named_source || has("source").is_some(),
            is_skipped,
        })
    }
}

/// A variant, or the struct.
struct Kind<'a> {
    path: TokenStream,
    settings: Settings,
    title: String,
    parts: Vec<Part<'a>>,
}

impl<'a> Kind<'a> {
    fn new(
        name: &Ident,
        path: TokenStream,
        attributes: &[Attribute],
        fields: &'a Fields,
    ) -> syn::Result<Self> {
        let settings = Settings::take(name, attributes)?;
        let title = match &settings.title {
            Some(title) => title.value(),
            None => documented(attributes).unwrap_or_else(|| in_words(name)),
        };
        let parts: Vec<_> = fields
            .iter()
            .enumerate()
            .map(|(index, field)| Part::new(index, field))
            .collect::<syn::Result<_>>()?;
        if let Some(second) = parts.iter().filter(|part| part.is_source).nth(1) {
            return Err(Error::new(
                second.field.span(),
                "there is one source, and this is another",
            ));
        }
        let is_made_from = parts.iter().any(|part| part.is_from);
        if let Some(other) = parts.iter().find(|part| is_made_from && !part.is_from) {
            let message = "what is made `#[from]` an error has no other fields";
            return Err(Error::new(other.field.span(), message));
        }
        Ok(Self {
            path,
            settings,
            title,
            parts,
        })
    }

    fn pattern(&self) -> TokenStream {
        let path = &self.path;
        let fields = self
            .parts
            .iter()
            .map(|Part { member, bound, .. }| quote!(#member: #bound));
        quote!(#path { #(#fields),* })
    }

    /// The arm that makes the problem.
    fn problem(&self) -> TokenStream {
        let pattern = self.pattern();
        let status = &self.settings.status;
        let title = &self.title;
        let kind = self
            .settings
            .kind
            .iter()
            .map(|kind| quote!(.with_type(#kind)));
        let detail =
            self.settings.detail.iter().map(
                |detail| quote_spanned!(detail.span()=> .with_detail(::std::format!(#detail))),
            );
        let source = self.parts.iter().filter(|part| part.is_source).map(|part| {
            let bound = &part.bound;
            quote_spanned!(part.field.ty.span()=> .with_source(#bound))
        });
        let members = self.members();
        quote! {
            #[allow(unused_variables)]
            #pattern => {
                const STATUS: ::tower_web::StatusCode = match ::tower_web::StatusCode::from_u16(#status) {
                    ::std::result::Result::Ok(status) => status,
                    ::std::result::Result::Err(_) => ::tower_web::StatusCode::INTERNAL_SERVER_ERROR,
                };
                ::tower_web::Problem::new(STATUS)
                    .with_title(#title)
                    #(#kind)*
                    #(#detail)*
                    #(#members)*
                    #(#source)*
            }
        }
    }

    /// What the document of an API says of it.
    fn description(&self) -> TokenStream {
        let status = &self.settings.status;
        let title = &self.title;
        let kind = match &self.settings.kind {
            Some(kind) => quote!(::core::option::Option::Some(#kind)),
            None => quote!(::core::option::Option::None),
        };
        quote!(operation.problem(#status, #title, #kind);)
    }

    /// The fields that are sent: those that have a name, and aren't the source.
    fn members(&self) -> Vec<TokenStream> {
        let sent = self
            .parts
            .iter()
            .filter(|part| !(self.settings.is_hidden || part.is_source || part.is_skipped));
        sent.filter_map(|part| {
            let name = part.field.ident.as_ref()?;
            let text = syn::ext::IdentExt::unraw(name).to_string();
            Some(quote_spanned!(part.field.ty.span()=> .with(#text, &#name)))
        })
        .collect()
    }

    /// The arm that writes it as text, for logs.
    fn text(&self) -> TokenStream {
        let pattern = self.pattern();
        let title = &self.title;
        match &self.settings.detail {
            Some(detail) => {
                let detail = quote_spanned!(detail.span()=> ::std::format_args!(#detail));
                quote!(#pattern => ::std::write!(formatter, "{}: {}", #title, #detail),)
            }
            None => quote!(#pattern => formatter.write_str(#title),),
        }
    }

    /// The arm that tells the cause.
    fn source(&self) -> TokenStream {
        let path = &self.path;
        match self.parts.iter().find(|part| part.is_source) {
            Some(Part { field, member, .. }) => {
                // Which error it is, its type decides: a box of one isn't one itself, whatever it is called.
                let cause = quote_spanned!(field.ty.span()=> source.as_cause());
                quote!(#path { #member: source, .. } => ::std::option::Option::Some(#cause),)
            }
            None => quote!(#path { .. } => ::std::option::Option::None,),
        }
    }

    fn conversion(&self, input: &DeriveInput) -> Option<TokenStream> {
        let part = self.parts.iter().find(|part| part.is_from)?;
        let name = &input.ident;
        let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
        let (path, member, ty) = (&self.path, &part.member, &part.field.ty);
        // That two variants are made of one type is told at the field.
        Some(quote_spanned! {here(ty)=>
            #[automatically_derived]
            #[allow(non_shorthand_field_patterns)]
            impl #impl_generics ::std::convert::From<#ty> for #name #type_generics #where_clause {
                fn from(source: #ty) -> Self {
                    #path { #member: source }
                }
            }
        })
    }
}

/// The first line of the documentation, without its full stop.
fn documented(attributes: &[Attribute]) -> Option<String> {
    let line = attributes
        .iter()
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })?;
    let line = line.trim().trim_end_matches('.');
    (!line.is_empty()).then(|| line.to_owned())
}

/// `NoSuchUser` as `no such user`.
fn in_words(name: &Ident) -> String {
    let mut words = String::new();
    for char in name.to_string().chars() {
        if char.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(char.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn ident(name: &str) -> Ident {
        Ident::new(name, Span::call_site())
    }

    #[test]
    fn a_name_is_told_in_words() {
        assert_eq!(in_words(&ident("NoSuchUser")), "no such user");
        assert_eq!(in_words(&ident("Gone")), "gone");
    }

    #[test]
    fn the_first_line_of_the_documentation_is_the_title() {
        let input: DeriveInput = syn::parse_quote! {
            /// No such user.
            ///
            /// More about it.
            struct NoSuchUser;
        };
        assert_eq!(documented(&input.attrs).as_deref(), Some("No such user"));
    }

    fn message(input: &DeriveInput) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let cases: [(DeriveInput, &str); 6] = [
            (
                syn::parse_quote!(
                    enum E {
                        A,
                    }
                ),
                "which status does `A` have",
            ),
            (
                syn::parse_quote!(
                    enum E {
                        #[problem(status = 200)]
                        A,
                    }
                ),
                "400 to 599",
            ),
            (
                syn::parse_quote!(
                    enum E {
                        #[problem(status = 404, tilte = "x")]
                        A,
                    }
                ),
                "`title`",
            ),
            (
                syn::parse_quote!(
                    enum E {
                        #[problem(status = 500, hide, detail = "x")]
                        A,
                    }
                ),
                "hidden",
            ),
            (
                syn::parse_quote!(
                    enum E {
                        #[problem(status = 500)]
                        A(#[from] X, u8),
                    }
                ),
                "no other fields",
            ),
            (
                syn::parse_quote!(
                    enum E {
                        #[problem(status = 500)]
                        A {
                            #[source]
                            a: X,
                            source: Y,
                        },
                    }
                ),
                "one source",
            ),
        ];
        for (input, part) in cases {
            let message = message(&input);
            assert!(message.contains(part), "{message}");
        }
    }
}
