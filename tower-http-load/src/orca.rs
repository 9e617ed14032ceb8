//! The form of a report, as text, as JSON, and in binary.

use std::error::Error;
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;

/// The text, or JSON.
pub(crate) const METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// The same as a protobuf message. gRPC has it in the trailers.
pub(crate) const METRICS_BIN: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// As gRPC has binary headers: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How loaded a server says it is: the parts of ORCA's load report that balancing needs
/// (`xds.data.orca.v3.OrcaLoadReport`; gRFC A51).
///
/// What a server doesn't say is zero. A utilization is a share of what there is: 0.8 are four fifths. That of an application may be above 1.
///
/// # Example
///
/// ```
/// use tower_http_load::Report;
///
/// let report = Report::new().with_application_utilization(0.25).with_requests_per_second(40.0);
/// assert_eq!(report.to_text(), "TEXT application_utilization=0.25,rps_fractional=40");
/// assert_eq!(Report::from_text(&report.to_text()), Ok(report));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    cpu: f64,
    application: f64,
    requests: f64,
    errors: f64,
}

/// What isn't a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportError {
    what: &'static str,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "load report is malformed: {}", self.what)
    }
}

impl Error for ReportError {}

const fn malformed(what: &'static str) -> ReportError {
    ReportError { what }
}

/// The message, as far as it is read here. Others of its fields are skipped.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

impl Report {
    /// Says nothing yet.
    pub const fn new() -> Self {
        Self {
            cpu: 0.0,
            application: 0.0,
            requests: 0.0,
            errors: 0.0,
        }
    }

    /// Which share of its processors the server uses.
    #[must_use]
    pub const fn with_cpu_utilization(mut self, share: f64) -> Self {
        self.cpu = share;
        self
    }

    /// Which share of what it can bear the server has to do, by its own measure. It counts more than that of the processors.
    #[must_use]
    pub const fn with_application_utilization(mut self, share: f64) -> Self {
        self.application = share;
        self
    }

    /// How many requests a second the server answers.
    #[must_use]
    pub const fn with_requests_per_second(mut self, requests: f64) -> Self {
        self.requests = requests;
        self
    }

    /// How many of them a second fail.
    #[must_use]
    pub const fn with_errors_per_second(mut self, errors: f64) -> Self {
        self.errors = errors;
        self
    }

    /// The application's utilization, or else that of the processors. `None` where neither is told.
    pub fn utilization(&self) -> Option<f64> {
        let told = |share: f64| (share > 0.0 && share.is_finite()).then_some(share);
        told(self.application).or_else(|| told(self.cpu))
    }

    /// Requests a second.
    pub const fn requests_per_second(&self) -> f64 {
        self.requests
    }

    /// Errors a second.
    pub const fn errors_per_second(&self) -> f64 {
        self.errors
    }

    /// The report as text, for the header `endpoint-load-metrics`.
    pub fn to_text(&self) -> String {
        let mut text = String::from("TEXT ");
        for (name, value) in self.fields() {
            if value != 0.0 {
                let comma = if text.ends_with(' ') { "" } else { "," };
                // Writing to a string can't fail.
                let _ = write!(text, "{comma}{name}={value}");
            }
        }
        text
    }

    fn fields(&self) -> [(&'static str, f64); 4] {
        [
            ("cpu_utilization", self.cpu),
            ("application_utilization", self.application),
            ("rps_fractional", self.requests),
            ("eps", self.errors),
        ]
    }

    fn set(&mut self, name: &str, value: f64) -> Result<(), ReportError> {
        let field = match name {
            "cpu_utilization" => &mut self.cpu,
            "application_utilization" => &mut self.application,
            "rps_fractional" => &mut self.requests,
            "eps" => &mut self.errors,
            // There are more, and there may be others some day.
            _ => return Ok(()),
        };
        if !value.is_finite() || value < 0.0 {
            return Err(malformed("a number is negative, or none"));
        }
        *field = value;
        Ok(())
    }

    /// Reads what stands in `endpoint-load-metrics`: `TEXT` or `JSON`, and the report.
    ///
    /// # Errors
    ///
    /// Fails where it is neither, or a value isn't a number from zero on. Fields that aren't known are skipped.
    pub fn from_text(text: &str) -> Result<Self, ReportError> {
        let (form, rest) = text.split_once(' ').unwrap_or((text, ""));
        match form {
            "TEXT" => Self::from_pairs(rest),
            "JSON" => Self::from_json(rest),
            _ => Err(malformed("it begins with neither `TEXT` nor `JSON`")),
        }
    }

    fn from_pairs(text: &str) -> Result<Self, ReportError> {
        let mut report = Self::new();
        let pairs = text.split(',').map(str::trim);
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(malformed("a pair has no `=`"))?;
            let value = value.trim().parse();
            report.set(
                name.trim(),
                value.map_err(|_| malformed("a value is no number"))?,
            )?;
        }
        Ok(report)
    }

    fn from_json(text: &str) -> Result<Self, ReportError> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|_| malformed("it isn't JSON"))?;
        let fields = value.as_object().ok_or(malformed("it is no object"))?;
        let mut report = Self::new();
        for (name, value) in fields {
            if let Some(value) = value.as_f64() {
                // As protobuf's JSON has names.
                let name = match name.as_str() {
                    "cpuUtilization" => "cpu_utilization",
                    "applicationUtilization" => "application_utilization",
                    "rpsFractional" => "rps_fractional",
                    name => name,
                };
                report.set(name, value)?;
            }
        }
        Ok(report)
    }

    /// The report for the header or trailer `endpoint-load-metrics-bin`.
    pub fn to_binary(&self) -> String {
        let wire = Wire {
            cpu_utilization: self.cpu,
            rps_fractional: self.requests,
            eps: self.errors,
            application_utilization: self.application,
        };
        BASE64.encode(wire.encode_to_vec())
    }

    /// Reads what stands in `endpoint-load-metrics-bin`.
    ///
    /// # Errors
    ///
    /// Fails where it isn't the message in base64, or a value is below zero.
    pub fn from_binary(text: &str) -> Result<Self, ReportError> {
        let bytes = BASE64
            .decode(text)
            .map_err(|_| malformed("it isn't base64"))?;
        let wire = Wire::decode(&*bytes).map_err(|_| malformed("it isn't the message"))?;
        let mut report = Self::new();
        report.set("cpu_utilization", wire.cpu_utilization)?;
        report.set("application_utilization", wire.application_utilization)?;
        report.set("rps_fractional", wire.rps_fractional)?;
        report.set("eps", wire.eps)?;
        Ok(report)
    }

    /// The report in a response's headers or trailers, in either form. `None` where there is none, and where it is malformed.
    pub fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match text(METRICS_BIN) {
            Some(binary) => Self::from_binary(binary).ok(),
            None => Self::from_text(text(METRICS)?).ok(),
        }
    }

    /// The text as a header's value.
    pub(crate) fn to_header_value(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_text()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_servers_write_is_read() {
        let report = Report::new()
            .with_cpu_utilization(0.3)
            .with_errors_per_second(2.0);
        for text in [
            "TEXT cpu_utilization=0.3,eps=2",
            "TEXT cpu_utilization = 0.3 , mem_utilization=0.8, named_metrics.key1=99.0 ,eps=2.0,",
            "JSON {\"cpu_utilization\": 0.3, \"eps\": 2, \"named_metrics\": {\"a\": 1}}",
            "JSON {\"cpuUtilization\": 0.3, \"eps\": 2}",
        ] {
            assert_eq!(Report::from_text(text), Ok(report), "{text}");
        }
        // field 1, a double, 0.5; field 3, a varint, which isn't read.
        assert_eq!(
            Report::from_binary("CQAAAAAAAOA/GAc=")
                .unwrap()
                .utilization(),
            Some(0.5)
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in [
            "",
            "TEXTcpu_utilization=1",
            "BIN abc",
            "TEXT cpu_utilization",
            "TEXT cpu_utilization=x",
            "TEXT cpu_utilization=-1",
            "TEXT eps=inf",
            "TEXT eps=NaN",
            "JSON [1]",
            "JSON {",
        ] {
            assert!(Report::from_text(text).is_err(), "{text}");
        }
        for text in ["!", "CQ", "CQAAAAAAAPC/"] {
            assert!(Report::from_binary(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_application_s_own_measure_counts_more() {
        let cpu = Report::new().with_cpu_utilization(0.9);
        assert_eq!(cpu.utilization(), Some(0.9));
        let both = cpu.with_application_utilization(0.4);
        assert_eq!(both.utilization(), Some(0.4));
        assert_eq!(Report::new().utilization(), None);
    }

    proptest! {
        #[test]
        fn it_comes_back_as_it_was_written(cpu in 0.0..2.0_f64, application in 0.0..2.0_f64, requests in 0.0..1e6_f64, errors in 0.0..1e6_f64) {
            let report = Report { cpu, application, requests, errors };
            prop_assert_eq!(Report::from_text(&report.to_text()), Ok(report));
            prop_assert_eq!(Report::from_binary(&report.to_binary()), Ok(report));
        }

        #[test]
        fn no_bytes_make_it_panic(text in ".{0,60}") {
            let _ = (Report::from_text(&text), Report::from_binary(&text));
        }
    }
}
