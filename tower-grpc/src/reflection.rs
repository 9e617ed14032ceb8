//! The reflection service: tells tools like `grpcurl` what services and types a server knows.
//!
//! [`Reflection`] serves the descriptor sets that `tower_grpc_build::configure().file_descriptor_set(…)` writes, in the
//! versions `v1` and `v1alpha` of the protocol, which say the same.
//!
//! Whoever can reach it can read the whole interface; leave it out where that isn't wanted.
//!
//! # Example
//!
//! ```
//! use tower_grpc::reflection::Reflection;
//! use tower_grpc::server::Router;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//!
//! // Usually: tower_grpc::include_file_descriptor_set!("my_descriptor").
//! let descriptor: &[u8] = tower_grpc::reflection::DESCRIPTOR;
//! let reflection = Reflection::new(&[descriptor])?;
//! let router: Router<Full<Bytes>> = Router::new()
//!     .add_service(reflection.v1())
//!     .add_service(reflection.v1alpha());
//! # let _ = router;
//! # Ok::<_, tower_grpc::reflection::InvalidDescriptor>(())
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};

use crate::{Request, Response, Status, Streaming};

mod versions;

pub use self::versions::{v1, v1alpha};

/// The descriptor set of the reflection service itself, in both versions of it.
pub const DESCRIPTOR: &[u8] = include_bytes!("pb/reflection.bin");
const DESCRIPTOR_V1ALPHA: &[u8] = include_bytes!("pb/reflection-v1alpha.bin");
const DESCRIPTOR_HEALTH: &[u8] = include_bytes!("pb/health.bin");

/// What a server tells of its services; makes the services that do so.
#[derive(Clone)]
pub struct Reflection {
    index: Arc<Index>,
}

/// What was given isn't an encoded `google.protobuf.FileDescriptorSet`.
#[derive(Clone, Debug)]
pub struct InvalidDescriptor {
    source: prost::DecodeError,
}

/// Answers the calls of the reflection service, in either version; see [`Reflection`].
#[derive(Clone, Debug)]
pub struct ReflectionService {
    reflection: Reflection,
}

impl Reflection {
    /// Tells of the services in these descriptor sets, and of reflection and health themselves.
    ///
    /// # Errors
    ///
    /// [`InvalidDescriptor`], where one isn't a `FileDescriptorSet`.
    pub fn new(descriptor_sets: &[&[u8]]) -> Result<Self, InvalidDescriptor> {
        let own = [DESCRIPTOR, DESCRIPTOR_V1ALPHA, DESCRIPTOR_HEALTH];
        let mut index = Index::default();
        for set in own.iter().chain(descriptor_sets) {
            index.add_set(set)?;
        }
        Ok(Self {
            index: Arc::new(index),
        })
    }

    /// Lists only these services: their full names.
    ///
    /// The types of the others can be asked for all the same.
    #[must_use]
    pub fn with_services<I>(self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut index = (*self.index).clone();
        index.services = names.into_iter().map(Into::into).collect();
        Self {
            index: Arc::new(index),
        }
    }

    fn service(&self) -> ReflectionService {
        ReflectionService {
            reflection: self.clone(),
        }
    }

    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Services => Answer::Services(self.index.services.iter().cloned().collect()),
            Question::File(name) => self.index.with_imports(self.index.file(&name)),
            Question::Symbol(symbol) => self.index.with_imports(self.index.declaring(&symbol)),
            Question::Extension(extended, number) => {
                let extensions = self.index.extensions.get(&extended);
                let file = extensions.and_then(|numbers| numbers.get(&number));
                self.index.with_imports(file.map(String::as_str))
            }
            Question::Extensions(extended) => match self.index.extensions.get(&extended) {
                Some(numbers) => Answer::Extensions(extended, numbers.keys().copied().collect()),
                None if self.index.messages.contains(&extended) => {
                    Answer::Extensions(extended, Vec::new())
                }
                None => Answer::NotFound,
            },
            Question::None => Answer::Nothing,
        }
    }
}

/// What a client asks, in whichever version.
#[derive(Debug)]
enum Question {
    Services,
    File(String),
    Symbol(String),
    Extension(String, i32),
    Extensions(String),
    None,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Services(Vec<String>),
    Files(Vec<Vec<u8>>),
    Extensions(String, Vec<i32>),
    NotFound,
    /// Nothing was asked.
    Nothing,
}

/// The files by what they declare.
#[derive(Clone, Default)]
struct Index {
    files: HashMap<String, Arc<File>>,
    services: BTreeSet<String>,
    /// The file of each symbol, by its full name.
    symbols: HashMap<String, String>,
    messages: BTreeSet<String>,
    /// The file of each extension, by the full name of what it extends.
    extensions: HashMap<String, BTreeMap<i32, String>>,
}

struct File {
    encoded: Vec<u8>,
    imports: Vec<String>,
}

impl Index {
    fn add_set(&mut self, set: &[u8]) -> Result<(), InvalidDescriptor> {
        /// A `FileDescriptorSet` whose files stay as they are: what isn't known here isn't lost.
        #[derive(Clone, PartialEq, Message)]
        struct RawSet {
            #[prost(bytes = "vec", repeated, tag = "1")]
            file: Vec<Vec<u8>>,
        }

        let invalid = |source| InvalidDescriptor { source };
        let files = RawSet::decode(set).map_err(invalid)?.file;
        for encoded in files {
            let file = FileDescriptorProto::decode(&*encoded).map_err(invalid)?;
            self.add_file(file, encoded);
        }
        Ok(())
    }

    fn add_file(&mut self, file: FileDescriptorProto, encoded: Vec<u8>) {
        let name = file.name().to_owned();
        let package = file.package().to_owned();
        for service in &file.service {
            let full = join(&package, service.name());
            for method in &service.method {
                self.declare(join(&full, method.name()), &name);
            }
            self.services.insert(full.clone());
            self.declare(full, &name);
        }
        for message in &file.message_type {
            self.add_message(&package, message, &name);
        }
        for enumeration in &file.enum_type {
            self.add_enum(&package, enumeration, &name);
        }
        for extension in &file.extension {
            self.add_extension(&package, extension, &name);
        }
        let imports = file.dependency;
        self.files.insert(name, Arc::new(File { encoded, imports }));
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, file: &str) {
        let full = join(scope, message.name());
        for field in &message.field {
            self.declare(join(&full, field.name()), file);
        }
        for oneof in &message.oneof_decl {
            self.declare(join(&full, oneof.name()), file);
        }
        for nested in &message.nested_type {
            self.add_message(&full, nested, file);
        }
        for enumeration in &message.enum_type {
            self.add_enum(&full, enumeration, file);
        }
        for extension in &message.extension {
            self.add_extension(&full, extension, file);
        }
        self.messages.insert(full.clone());
        self.declare(full, file);
    }

    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto, file: &str) {
        // The values are beside the enum, not in it.
        for value in &enumeration.value {
            self.declare(join(scope, value.name()), file);
        }
        self.declare(join(scope, enumeration.name()), file);
    }

    fn add_extension(&mut self, scope: &str, extension: &FieldDescriptorProto, file: &str) {
        let extended = extension.extendee().trim_start_matches('.').to_owned();
        let numbers = self.extensions.entry(extended).or_default();
        numbers.insert(extension.number(), file.to_owned());
        self.declare(join(scope, extension.name()), file);
    }

    fn declare(&mut self, symbol: String, file: &str) {
        self.symbols.insert(symbol, file.to_owned());
    }

    fn file<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.files
            .get_key_value(name)
            .map(|(name, _)| name.as_str())
    }

    fn declaring(&self, symbol: &str) -> Option<&str> {
        let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
        self.symbols.get(symbol).map(String::as_str)
    }

    /// A file with all that it imports, itself first.
    fn with_imports(&self, name: Option<&str>) -> Answer {
        let Some(name) = name else {
            return Answer::NotFound;
        };
        let mut names = vec![name];
        let mut next = 0;
        while let Some(name) = names.get(next) {
            next += 1;
            let imports = self.files.get(*name).map_or(&[][..], |file| &file.imports);
            for import in imports {
                if !names.contains(&import.as_str()) {
                    names.push(import);
                }
            }
        }
        let files = names.iter().filter_map(|name| self.files.get(*name));
        Answer::Files(files.map(|file| file.encoded.clone()).collect())
    }
}

fn join(scope: &str, name: &str) -> String {
    match scope {
        "" => name.to_owned(),
        scope => format!("{scope}.{name}"),
    }
}

/// Answers each question of a stream.
struct Answers<Q, A> {
    questions: Streaming<Q>,
    reflection: Reflection,
    answer: fn(&Reflection, Q) -> A,
}

impl<Q, A> Stream for Answers<Q, A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let question = std::task::ready!(Pin::new(&mut self.questions).poll_next(cx));
        let answered = question.map(|question| Ok((self.answer)(&self.reflection, question?)));
        Poll::Ready(answered)
    }
}

fn answer_all<Q, A>(
    service: &ReflectionService,
    request: Request<Streaming<Q>>,
    answer: fn(&Reflection, Q) -> A,
) -> Response<Answers<Q, A>> {
    Response::new(Answers {
        questions: request.into_inner(),
        reflection: service.reflection.clone(),
        answer,
    })
}

impl fmt::Debug for Reflection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflection")
            .field("services", &self.index.services)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this isn't an encoded google.protobuf.FileDescriptorSet")
    }
}

impl std::error::Error for InvalidDescriptor {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
