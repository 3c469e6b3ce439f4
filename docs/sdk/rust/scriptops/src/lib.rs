//! The script API of scriptops for rules in WebAssembly, without dependencies.
//!
//! A rule is a library of type `cdylib` with an exported `main`; [`rule!`] makes it. `docs/wasm.md`
//! says what each function promises.

mod raw {
    #[link(wasm_import_module = "scriptops_v1")]
    extern "C" {
        pub fn device_readable(index: usize, to: *mut u8, room: usize) -> i32;
        pub fn device_writable(index: usize, to: *mut u8, room: usize) -> i32;
        pub fn device_type(alias: *const u8, alias_len: usize, name: *const u8, name_len: usize) -> i32;
        pub fn device_number(alias: *const u8, alias_len: usize, name: *const u8, name_len: usize) -> f64;
        pub fn device_bool(alias: *const u8, alias_len: usize, name: *const u8, name_len: usize) -> i32;
        pub fn device_string(
            alias: *const u8, alias_len: usize, name: *const u8, name_len: usize, to: *mut u8, room: usize,
        ) -> i32;
        pub fn device_set_number(
            alias: *const u8, alias_len: usize, name: *const u8, name_len: usize, value: f64,
        ) -> i32;
        pub fn device_set_bool(
            alias: *const u8, alias_len: usize, name: *const u8, name_len: usize, value: i32,
        ) -> i32;
        pub fn device_set_string(
            alias: *const u8, alias_len: usize, name: *const u8, name_len: usize,
            value: *const u8, value_len: usize,
        ) -> i32;
        pub fn device_commit(alias: *const u8, alias_len: usize, qos: i32, force: i32) -> i32;
        pub fn env(name: *const u8, name_len: usize, to: *mut u8, room: usize) -> i32;
        pub fn event(to: *mut u8, room: usize) -> i32;
        pub fn log(level: i32, text: *const u8, len: usize) -> i32;
        pub fn now() -> f64;
        pub fn random() -> f64;
        pub fn state_get(key: *const u8, key_len: usize, to: *mut u8, room: usize) -> i32;
        pub fn state_set(key: *const u8, key_len: usize, json: *const u8, len: usize) -> i32;
        pub fn state_delete(key: *const u8, key_len: usize) -> i32;
        pub fn state_key(index: usize, to: *mut u8, room: usize) -> i32;
        pub fn fetch(request: *const u8, len: usize) -> i32;
        pub fn fetch_reply(number: i32, to: *mut u8, room: usize) -> i32;
        pub fn refusal(to: *mut u8, room: usize) -> i32;
        pub fn fail(text: *const u8, len: usize) -> !;
    }
}

/// An op that was not done. Returned from the rule, it makes the run `Denied` or `Failed` with
/// the words of the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The Script's manifest or limits do not permit it.
    Denied,
    /// It cannot be that: not finite, too long, not JSON.
    Invalid,
}

impl Error {
    /// The code that ends a run with this refusal.
    pub fn code(self) -> i32 {
        match self {
            Error::Denied => -2,
            Error::Invalid => -3,
        }
    }

    /// Why the last refused op was refused.
    pub fn reason() -> String {
        text(|to, room| unsafe { raw::refusal(to, room) }).ok().flatten().unwrap_or_default()
    }
}

pub type Result<T = ()> = core::result::Result<T, Error>;

fn judged(code: i32) -> Result<Option<usize>> {
    match code {
        -1 => Ok(None),
        -2 => Err(Error::Denied),
        code if code < 0 => Err(Error::Invalid),
        code => Ok(Some(code as usize)),
    }
}

fn done(code: i32) -> Result {
    judged(code).map(|_| ())
}

/// Ask with room for most answers, and once more when there was too little.
fn bytes(ask: impl Fn(*mut u8, usize) -> i32) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 128];
    loop {
        let needed = match judged(ask(buffer.as_mut_ptr(), buffer.len()))? {
            None => return Ok(None),
            Some(needed) => needed,
        };
        let fits = needed <= buffer.len();
        buffer.resize(needed, 0);
        if fits {
            return Ok(Some(buffer));
        }
    }
}

fn text(ask: impl Fn(*mut u8, usize) -> i32) -> Result<Option<String>> {
    Ok(bytes(ask)?.map(|found| String::from_utf8_lossy(&found).into_owned()))
}

fn all(ask: impl Fn(usize, *mut u8, usize) -> i32) -> Vec<String> {
    (0..).map_while(|index| text(|to, room| ask(index, to, room)).ok().flatten()).collect()
}

/// A value of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

/// Aliases of readSelector.
pub fn readable_devices() -> Vec<String> {
    all(|index, to, room| unsafe { raw::device_readable(index, to, room) })
}

/// Aliases of writeSelector.
pub fn writable_devices() -> Vec<String> {
    all(|index, to, room| unsafe { raw::device_writable(index, to, room) })
}

/// A device by the alias that the Script gives it.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a>(pub &'a str);

impl Device<'_> {
    /// The reported value; `None` when it is not known.
    pub fn get(self, name: &str) -> Result<Option<Value>> {
        let (alias, len) = (self.0.as_ptr(), self.0.len());
        let kind = unsafe { raw::device_type(alias, len, name.as_ptr(), name.len()) };
        Ok(match judged(kind)? {
            Some(1) => Some(Value::Bool(
                unsafe { raw::device_bool(alias, len, name.as_ptr(), name.len()) } == 1,
            )),
            Some(2) => Some(Value::Number(unsafe {
                raw::device_number(alias, len, name.as_ptr(), name.len())
            })),
            Some(_) => text(|to, room| unsafe {
                raw::device_string(alias, len, name.as_ptr(), name.len(), to, room)
            })?
            .map(Value::Text),
            None => None,
        })
    }

    /// The reported value if it is a number.
    pub fn number(self, name: &str) -> Option<f64> {
        let (alias, len) = (self.0.as_ptr(), self.0.len());
        let value = unsafe { raw::device_number(alias, len, name.as_ptr(), name.len()) };
        if value.is_nan() { None } else { Some(value) }
    }

    /// The reported value if it is a boolean.
    pub fn bool(self, name: &str) -> Option<bool> {
        let (alias, len) = (self.0.as_ptr(), self.0.len());
        match unsafe { raw::device_bool(alias, len, name.as_ptr(), name.len()) } {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Stage a value; nothing leaves the run before [`Device::commit`].
    pub fn set(self, name: &str, value: impl Into<Value>) -> Result {
        let (alias, len, at, size) = (self.0.as_ptr(), self.0.len(), name.as_ptr(), name.len());
        done(unsafe {
            match value.into() {
                Value::Bool(value) => raw::device_set_bool(alias, len, at, size, value as i32),
                Value::Number(value) => raw::device_set_number(alias, len, at, size, value),
                Value::Text(value) => {
                    raw::device_set_string(alias, len, at, size, value.as_ptr(), value.len())
                }
            }
        })
    }

    /// Let what was staged for this device leave with the run, at quality 0.
    pub fn commit(self) -> Result {
        self.commit_with(0, false)
    }

    /// Wait until the edge has the values (1) or the device reports them (2); what was reached.
    pub fn commit_and_wait(self, qos: u8) -> Result<u8> {
        judged(unsafe { raw::device_commit(self.0.as_ptr(), self.0.len(), qos as i32, 0) })
            .map(|reached| reached.unwrap_or(0) as u8)
    }

    /// As `commit`, with a quality of 0 to 2; `force` writes values that are there already too.
    pub fn commit_with(self, qos: u8, force: bool) -> Result {
        done(unsafe {
            raw::device_commit(self.0.as_ptr(), self.0.len(), qos as i32, force as i32)
        })
    }
}

/// A variable of the Script.
pub fn env(name: &str) -> Option<String> {
    text(|to, room| unsafe { raw::env(name.as_ptr(), name.len(), to, room) }).ok().flatten()
}

/// What started the run, as JSON.
pub fn event() -> String {
    text(|to, room| unsafe { raw::event(to, room) }).ok().flatten().unwrap_or_default()
}

/// The time of the run in milliseconds since 1970; it stands still while the run lasts.
pub fn now() -> f64 {
    unsafe { raw::now() }
}

/// A number from 0 up to 1; the same ones when the run is replayed.
pub fn random() -> f64 {
    unsafe { raw::random() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// A line of the run's log.
pub fn log(level: Level, line: &str) {
    unsafe { raw::log(level as i32, line.as_ptr(), line.len()) };
}

/// End the run as `Failed` with `reason`.
pub fn fail(reason: &str) -> ! {
    unsafe { raw::fail(reason.as_ptr(), reason.len()) }
}

/// What this Script remembers from run to run, JSON by key.
pub mod state {
    use super::{all, done, judged, raw, text, Result};

    pub fn get(key: &str) -> Option<String> {
        text(|to, room| unsafe { raw::state_get(key.as_ptr(), key.len(), to, room) }).ok().flatten()
    }

    /// `json` is kept if the run succeeds.
    pub fn set(key: &str, json: &str) -> Result {
        done(unsafe { raw::state_set(key.as_ptr(), key.len(), json.as_ptr(), json.len()) })
    }

    /// Whether it was there.
    pub fn delete(key: &str) -> Result<bool> {
        Ok(judged(unsafe { raw::state_delete(key.as_ptr(), key.len()) })? == Some(1))
    }

    pub fn keys() -> Vec<String> {
        all(|index, to, room| unsafe { raw::state_key(index, to, room) })
    }
}

/// A request on its way. Start several before reading the first reply: they are sent together.
#[derive(Debug)]
pub struct Fetch(i32);

impl Fetch {
    /// `request` is a JSON object with a `url`, and perhaps `method`, `headers` and `body`.
    pub fn start(request: &str) -> Result<Fetch> {
        let number = unsafe { raw::fetch(request.as_ptr(), request.len()) };
        judged(number).map(|_| Fetch(number))
    }

    /// The reply as a JSON object. The run may be started anew to get here.
    pub fn reply(self) -> Result<String> {
        text(|to, room| unsafe { raw::fetch_reply(self.0, to, room) }).map(Option::unwrap_or_default)
    }
}

/// Make a function `fn() -> scriptops::Result` the rule; a panic fails the run with its message.
#[macro_export]
macro_rules! rule {
    ($function:path) => {
        #[export_name = "main"]
        pub extern "C" fn scriptops_main() -> i32 {
            $crate::tell_panics();
            match $function() {
                Ok(()) => 0,
                Err(error) => $crate::Error::code(error),
            }
        }
    };
}

#[doc(hidden)]
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| fail(&panic.to_string())));
}
