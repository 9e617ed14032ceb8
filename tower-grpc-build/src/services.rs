//! The code of clients and servers.

use std::collections::HashMap;
use std::fmt::Write;

use prost_build::{Comments, Method, Service, ServiceGenerator};

/// The code of a package.
#[derive(Debug, Default)]
struct Code {
    clients: String,
    servers: String,
}

/// Generates the services of each package.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) codec: String,
    pub(crate) krate: String,
    pub(crate) server_attributes: Vec<(String, String)>,
    pub(crate) client_attributes: Vec<(String, String)>,
    pub(crate) uncommented: Vec<String>,
    /// The code of each package that isn't written yet: all services of one share a module.
    packages: HashMap<String, Code>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            client: true,
            server: true,
            codec: String::new(),
            krate: "::tower_grpc".to_owned(),
            server_attributes: Vec::new(),
            client_attributes: Vec::new(),
            uncommented: Vec::new(),
            packages: HashMap::new(),
        }
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let client = self.client.then(|| self.client_of(&service));
        let server = self.server.then(|| self.server_of(&service));
        let code = self.packages.entry(service.package).or_default();
        code.clients.extend(client);
        code.servers.extend(server);
        // A package without messages would be taken for empty.
        buf.push('\n');
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        const ALLOWED: &str = "#[allow(dead_code, missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]";

        let Code { clients, servers } = self.packages.remove(package).unwrap_or_default();
        if !clients.is_empty() {
            let _ = write!(
                buf,
                "/// Clients of the services.\n{ALLOWED}\npub mod client {{\n{clients}\n}}\n"
            );
        }
        if !servers.is_empty() {
            let _ = write!(
                buf,
                "/// Servers of the services: traits to implement, and what answers calls with them.\n\
                 {ALLOWED}\npub mod server {{\n{servers}\n}}\n"
            );
        }
    }
}

/// The kinds of methods, by who sends a stream.
#[derive(Clone, Copy)]
struct Shape {
    function: &'static str,
    streams_in: bool,
    streams_out: bool,
}

fn shape(method: &Method) -> Shape {
    let function = match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (true, false) => "client_streaming",
        (false, true) => "server_streaming",
        (true, true) => "streaming",
    };
    Shape {
        function,
        streams_in: method.client_streaming,
        streams_out: method.server_streaming,
    }
}

/// What clients have beside their methods, which then get a `_` after their names.
const CLIENT_NAMES: [&str; 8] = [
    "new",
    "clone",
    "from",
    "fmt",
    "with_origin",
    "with_sent_encoding",
    "with_max_decoding_message_size",
    "with_max_encoding_message_size",
];

impl Services {
    fn codec(&self) -> String {
        match self.codec.as_str() {
            "" => format!("{}::codec::Prost", self.krate),
            codec => codec.to_owned(),
        }
    }

    fn comments(&self, path: &str, comments: &Comments) -> String {
        let silent = self.uncommented.iter().any(|off| matches(off, path));
        let mut text = String::new();
        if !silent {
            // Only what stands right before: detached comments are about something else.
            let leading = Comments {
                leading: comments.leading.clone(),
                ..Comments::default()
            };
            leading.append_with_indent(0, &mut text);
        }
        text
    }

    fn client_of(&self, service: &Service) -> String {
        let krate = &self.krate;
        let full = full_name(service);
        let name = format!("{}Client", service.name);
        let mut methods = String::new();
        for method in &service.methods {
            self.client_method(service, method, &mut methods);
        }
        let docs = or_default(
            self.comments(&full, &service.comments),
            &format!("Calls the service `{full}`."),
        );
        let attributes = attributes(&self.client_attributes, &full);
        let deprecated = deprecated(service.options.deprecated());
        let allow = if deprecated.is_empty() {
            ""
        } else {
            "#[allow(deprecated)]"
        };
        format!(
            r#"
            {docs}
            ///
            /// It calls over any service of HTTP requests: a channel, and whatever layers are around it.
            {deprecated}
            {attributes}
            #[derive(Clone, Debug)]
            pub struct {name}<S> {{
                client: {krate}::client::Client<S>,
            }}

            {allow}
            impl<S> {name}<S> {{
                /// A client that calls over `service`.
                pub fn new(service: S) -> Self {{
                    Self::from({krate}::client::Client::new(service))
                }}

                /// Calls the server at `origin`, for services that don't know it themselves.
                #[must_use]
                pub fn with_origin(self, origin: &{krate}::generated::http::Uri) -> Self {{
                    Self::from(self.client.with_origin(origin))
                }}

                /// Compresses what is sent. The server has to know the encoding.
                #[must_use]
                pub fn with_sent_encoding(self, encoding: {krate}::Encoding) -> Self {{
                    Self::from(self.client.with_sent_encoding(encoding))
                }}

                /// How many bytes a received message may have; 4 MiB by default.
                #[must_use]
                pub fn with_max_decoding_message_size(self, bytes: usize) -> Self {{
                    Self::from(self.client.with_max_decoding_message_size(bytes))
                }}

                /// How many bytes a message that is sent may have; unbounded by default.
                #[must_use]
                pub fn with_max_encoding_message_size(self, bytes: usize) -> Self {{
                    Self::from(self.client.with_max_encoding_message_size(bytes))
                }}
            }}

            {allow}
            impl<S> ::std::convert::From<{krate}::client::Client<S>> for {name}<S> {{
                fn from(client: {krate}::client::Client<S>) -> Self {{
                    Self {{ client }}
                }}
            }}

            {allow}
            impl<S, B> {name}<S>
            where
                S: {krate}::generated::Service<
                    {krate}::generated::http::Request<{krate}::GrpcBody>,
                    Response = {krate}::generated::http::Response<B>,
                >,
                S::Error: ::std::convert::Into<{krate}::generated::BoxError>,
                S::Future: ::std::marker::Send + 'static,
                B: {krate}::generated::Body<Data = {krate}::generated::Bytes> + ::std::marker::Send + 'static,
                B::Error: ::std::convert::Into<{krate}::generated::BoxError>,
            {{
                {methods}
            }}
            "#
        )
    }

    fn client_method(&self, service: &Service, method: &Method, out: &mut String) {
        let krate = &self.krate;
        let codec = self.codec();
        let full = full_name(service);
        let path = format!("/{full}/{}", method.proto_name);
        let docs = or_default(
            self.comments(&format!("{full}.{}", method.proto_name), &method.comments),
            &format!("Calls `{path}`."),
        );
        let deprecated = deprecated(method.options.deprecated());
        let name = match CLIENT_NAMES.contains(&method.name.as_str()) {
            true => format!("{}_", method.name),
            false => method.name.clone(),
        };
        let (input, output) = (inside(&method.input_type), inside(&method.output_type));
        let shape = shape(method);
        let function = shape.function;
        let (argument, wrap) = match shape.streams_in {
            false => (format!("{krate}::IntoRequest<{input}>"), "into_request"),
            true => (
                format!("{krate}::IntoStreamingRequest<Message = {input}>"),
                "into_streaming_request",
            ),
        };
        let result = match (shape.streams_in, shape.streams_out) {
            (_, false) => format!("{krate}::Response<{output}>"),
            (false, true) => format!("{krate}::Response<{krate}::Streaming<{output}>>"),
            (true, true) => format!("{krate}::Streaming<{output}>"),
        };
        let _ = write!(
            out,
            r#"
            {docs}
            {deprecated}
            pub async fn {name}(
                &mut self,
                request: impl {argument},
            ) -> ::std::result::Result<{result}, {krate}::Status> {{
                let codec = <{codec} as ::std::default::Default>::default();
                self.client.{function}("{path}", codec, request.{wrap}()).await
            }}
            "#
        );
    }

    fn server_of(&self, service: &Service) -> String {
        let krate = &self.krate;
        let full = full_name(service);
        let name = &service.name;
        let mut methods = String::new();
        let mut arms = String::new();
        for method in &service.methods {
            self.trait_method(&full, method, &mut methods);
            self.dispatch_arm(&full, name, method, &mut arms);
        }
        let docs = or_default(
            self.comments(&full, &service.comments),
            &format!("The service `{full}`."),
        );
        let attributes = attributes(&self.server_attributes, &full);
        let deprecated = deprecated(service.options.deprecated());
        let server = server_struct(krate, name, &full);
        format!(
            r#"
            {docs}
            ///
            /// Implement the methods as `async fn`s. Dropping a call's future is how the handler learns that the
            /// client has given up, or that the call's time is up.
            {deprecated}
            {attributes}
            pub trait {name}: ::std::marker::Send + ::std::marker::Sync + 'static {{
                {methods}
            }}

            {server}

            #[allow(deprecated)]
            impl<T, B> {krate}::server::GrpcService<B> for {name}Server<T>
            where
                T: {name},
                B: {krate}::generated::Body<Data = {krate}::generated::Bytes> + ::std::marker::Send + 'static,
                B::Error: ::std::convert::Into<{krate}::generated::BoxError>,
            {{
                const NAME: &'static str = "{full}";

                fn handle(
                    &self,
                    request: {krate}::generated::http::Request<B>,
                ) -> {krate}::server::ResponseFuture {{
                    match request.uri().path() {{
                        {arms}
                        _ => {krate}::server::unimplemented(request),
                    }}
                }}
            }}
            "#
        )
    }

    fn trait_method(&self, service: &str, method: &Method, out: &mut String) {
        let krate = &self.krate;
        let docs = or_default(
            self.comments(
                &format!("{service}.{}", method.proto_name),
                &method.comments,
            ),
            &format!("Answers `/{service}/{}`.", method.proto_name),
        );
        let deprecated = deprecated(method.options.deprecated());
        let (input, output) = (inside(&method.input_type), inside(&method.output_type));
        let shape = shape(method);
        let input = match shape.streams_in {
            true => format!("{krate}::Streaming<{input}>"),
            false => input,
        };
        let output = match shape.streams_out {
            true => format!(
                "impl {krate}::generated::Stream<Item = ::std::result::Result<{output}, {krate}::Status>> \
                 + ::std::marker::Send + 'static"
            ),
            false => output,
        };
        let _ = write!(
            out,
            r#"
            {docs}
            {deprecated}
            fn {}(
                &self,
                request: {krate}::Request<{input}>,
            ) -> impl ::std::future::Future<
                Output = ::std::result::Result<{krate}::Response<{output}>, {krate}::Status>,
            > + ::std::marker::Send;
            "#,
            method.name
        );
    }

    fn dispatch_arm(&self, service: &str, name: &str, method: &Method, out: &mut String) {
        let krate = &self.krate;
        let codec = self.codec();
        let shape = shape(method);
        let function = shape.function;
        let rust_name = &method.name;
        let handler = match shape.streams_out {
            false => format!("async move |request| {name}::{rust_name}(&*service, request).await"),
            true => format!(
                "async move |request, reply| {{ \
                    let response = {name}::{rust_name}(&*service, request).await?; \
                    ::std::result::Result::Ok(reply.stream(response)) \
                }}"
            ),
        };
        let _ = write!(
            out,
            r#"
            "/{service}/{}" => {{
                let service = ::std::sync::Arc::clone(&self.service);
                let codec = <{codec} as ::std::default::Default>::default();
                {krate}::server::{function}(self.settings, codec, request, {handler})
            }}
            "#,
            method.proto_name
        );
    }
}

/// The struct that answers calls, with its settings.
fn server_struct(krate: &str, name: &str, full: &str) -> String {
    format!(
        r#"
        /// Answers calls of `{full}`: a service of HTTP requests.
        #[derive(Debug)]
        pub struct {name}Server<T> {{
            service: ::std::sync::Arc<T>,
            settings: {krate}::server::Settings,
        }}

        impl<T> {name}Server<T> {{
            /// The full name of the service.
            pub const NAME: &'static str = "{full}";

            /// Answers calls with `service`, which all clones share.
            pub fn new(service: T) -> Self {{
                Self::from(::std::sync::Arc::new(service))
            }}

            /// How many bytes a received message may have, before it is decompressed and after; 4 MiB by default.
            #[must_use]
            pub fn with_max_decoding_message_size(mut self, bytes: usize) -> Self {{
                self.settings.set_max_decoding_message_size(bytes);
                self
            }}

            /// How many bytes a message that is sent may have; unbounded by default.
            #[must_use]
            pub fn with_max_encoding_message_size(mut self, bytes: usize) -> Self {{
                self.settings.set_max_encoding_message_size(bytes);
                self
            }}

            /// Which encodings received messages may have; all by default.
            #[must_use]
            pub fn with_accepted_encodings(
                mut self,
                encodings: impl ::std::iter::IntoIterator<Item = {krate}::Encoding>,
            ) -> Self {{
                self.settings.set_accepted_encodings(encodings);
                self
            }}

            /// Compresses messages in one of these that the client accepts; none by default.
            #[must_use]
            pub fn with_sent_encodings(
                mut self,
                encodings: impl ::std::iter::IntoIterator<Item = {krate}::Encoding>,
            ) -> Self {{
                self.settings.set_sent_encodings(encodings);
                self
            }}
        }}

        impl<T> ::std::convert::From<::std::sync::Arc<T>> for {name}Server<T> {{
            fn from(service: ::std::sync::Arc<T>) -> Self {{
                Self {{
                    service,
                    settings: ::std::default::Default::default(),
                }}
            }}
        }}

        impl<T> ::std::clone::Clone for {name}Server<T> {{
            fn clone(&self) -> Self {{
                Self {{
                    service: ::std::sync::Arc::clone(&self.service),
                    settings: self.settings,
                }}
            }}
        }}

        #[allow(deprecated)]
        impl<T, B> {krate}::generated::Service<{krate}::generated::http::Request<B>> for {name}Server<T>
        where
            T: {name},
            B: {krate}::generated::Body<Data = {krate}::generated::Bytes> + ::std::marker::Send + 'static,
            B::Error: ::std::convert::Into<{krate}::generated::BoxError>,
        {{
            type Response = {krate}::generated::http::Response<{krate}::GrpcBody>;
            type Error = ::std::convert::Infallible;
            type Future = {krate}::server::ResponseFuture;

            fn poll_ready(
                &mut self,
                _: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::result::Result<(), Self::Error>> {{
                ::std::task::Poll::Ready(::std::result::Result::Ok(()))
            }}

            fn call(&mut self, request: {krate}::generated::http::Request<B>) -> Self::Future {{
                {krate}::server::GrpcService::handle(self, request)
            }}
        }}
        "#
    )
}

fn full_name(service: &Service) -> String {
    match service.package.as_str() {
        "" => service.proto_name.clone(),
        package => format!("{package}.{}", service.proto_name),
    }
}

/// The path of a type of the package, from within a module of it.
fn inside(rust_type: &str) -> String {
    let is_absolute = ["::", "crate::", "("]
        .iter()
        .any(|start| rust_type.starts_with(start));
    match is_absolute {
        true => rust_type.to_owned(),
        false => format!("super::{rust_type}"),
    }
}

fn or_default(docs: String, default: &str) -> String {
    match docs.is_empty() {
        true => format!("/// {default}"),
        false => docs,
    }
}

fn deprecated(is_deprecated: bool) -> &'static str {
    match is_deprecated {
        true => "#[deprecated]",
        false => "",
    }
}

fn attributes(all: &[(String, String)], service: &str) -> String {
    all.iter()
        .filter(|(path, _)| matches(path, service))
        .map(|(_, attribute)| format!("{attribute}\n"))
        .collect()
}

/// Whether `pattern` names `path`, or a package or service around it, as `prost-build` has it.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_prefix('.') {
        Some("") => true,
        Some(absolute) => path
            .strip_prefix(absolute)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        None => path
            .strip_suffix(pattern)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}
