//! What is in a network namespace.

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SysctlType {
    Str = 5,
    Number = 6,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SysctlEntry {
    #[prost(enumeration = "SysctlType", required, tag = "1")]
    pub r#type: i32,
    #[prost(int32, optional, tag = "2")]
    pub iarg: Option<i32>,
    #[prost(string, optional, tag = "3")]
    pub sarg: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NdType {
    Loopback = 1,
    Veth = 2,
    Tun = 3,
    Extlink = 4,
    Venet = 5,
    Bridge = 6,
    Macvlan = 7,
    Sit = 8,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MacvlanLinkEntry {
    #[prost(uint32, required, tag = "1")]
    pub mode: u32,
    #[prost(uint32, optional, tag = "2")]
    pub flags: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NetDeviceEntry {
    #[prost(enumeration = "NdType", required, tag = "1")]
    pub r#type: i32,
    #[prost(uint32, required, tag = "2")]
    pub ifindex: u32,
    #[prost(uint32, required, tag = "3")]
    pub mtu: u32,
    #[prost(uint32, required, tag = "4")]
    pub flags: u32,
    #[prost(string, required, tag = "5")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub address: Option<Vec<u8>>,
    #[prost(int32, repeated, packed = "false", tag = "8")]
    pub conf: Vec<i32>,
    #[prost(message, repeated, tag = "9")]
    pub conf4: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "10")]
    pub conf6: Vec<SysctlEntry>,
    #[prost(message, optional, tag = "11")]
    pub macvlan: Option<MacvlanLinkEntry>,
    #[prost(uint32, optional, tag = "12")]
    pub peer_ifindex: Option<u32>,
    #[prost(uint32, optional, tag = "13")]
    pub peer_nsid: Option<u32>,
    #[prost(uint32, optional, tag = "14")]
    pub master: Option<u32>,
    /// The kernel's word for the kind of device. Only floe writes and reads it.
    #[prost(string, optional, tag = "1001")]
    pub kind: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NetnsId {
    #[prost(uint32, required, tag = "1")]
    pub target_ns_id: u32,
    #[prost(int32, required, tag = "2")]
    pub netnsid_value: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NetnsEntry {
    #[prost(int32, repeated, packed = "false", tag = "1")]
    pub def_conf: Vec<i32>,
    #[prost(int32, repeated, packed = "false", tag = "2")]
    pub all_conf: Vec<i32>,
    #[prost(message, repeated, tag = "3")]
    pub def_conf4: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "4")]
    pub all_conf4: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "5")]
    pub def_conf6: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "6")]
    pub all_conf6: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "7")]
    pub nsids: Vec<NetnsId>,
    #[prost(string, optional, tag = "8")]
    pub ext_key: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub unix_conf: Vec<SysctlEntry>,
    #[prost(message, repeated, tag = "10")]
    pub ipv4_sysctl: Vec<SysctlEntry>,
}
