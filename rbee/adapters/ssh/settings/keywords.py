"""The keywords of ssh_config(5), and what becomes of each: docs/nodes.md has the same table. (PURE)"""

from __future__ import annotations

from typing import Final

HONOURED: Final = (
    "AddressFamily", "BindAddress", "CertificateFile", "Ciphers", "ConnectionAttempts", "ConnectTimeout",
    "GlobalKnownHostsFile", "HashKnownHosts", "Host", "HostKeyAlgorithms", "HostKeyAlias", "HostName", "IdentitiesOnly",
    "IdentityAgent", "IdentityFile", "IgnoreUnknown", "Include", "KexAlgorithms", "MACs", "Match",
    "NoHostAuthenticationForLocalhost", "Port", "PreferredAuthentications", "ProxyCommand", "ProxyJump",
    "PubkeyAcceptedAlgorithms", "PubkeyAuthentication", "RefuseConnection", "RequiredRSASize", "RevokedHostKeys",
    "StrictHostKeyChecking", "Tag", "User", "UserKnownHostsFile",
)  # fmt: skip
SAID: Final = (
    "BindInterface", "CanonicalizeHostname", "CASignatureAlgorithms", "CheckHostIP", "HostbasedAuthentication",
    "KnownHostsCommand", "PKCS11Provider", "ProxyUseFdpass", "VerifyHostKeyDNS",
)  # fmt: skip
"""What may change which machine is reached, or refused, and is passed over: the user is told so."""
SAID_OF_KEYS: Final = ("ControlPath", "SecurityKeyProvider")
"""What may let the user in where rbee is not: said with that error alone, as many have it for other reasons."""
WITHOUT_EFFECT: Final = (
    "AddKeysToAgent", "BatchMode", "CanonicalDomains", "CanonicalizeFallbackLocal", "CanonicalizeMaxDots",
    "CanonicalizePermittedCNAMEs", "ChallengeResponseAuthentication", "ChannelTimeout", "Cipher",
    "ClearAllForwardings", "Compression", "CompressionLevel", "ControlMaster", "ControlPersist",
    "DSAAuthentication", "DynamicForward", "EnableEscapeCommandline", "EnableSSHKeysign", "EscapeChar",
    "ExitOnForwardFailure", "FallbackToRsh", "FingerprintHash", "ForkAfterAuthentication", "ForwardAgent",
    "ForwardX11", "ForwardX11Timeout", "ForwardX11Trusted", "GatewayPorts", "GSSAPIAuthentication",
    "GSSAPIClientIdentity", "GSSAPIDelegateCredentials", "GSSAPIKexAlgorithms", "GSSAPIKeyExchange",
    "GSSAPIRenewalForcesRekey", "GSSAPIServerIdentity", "GSSAPITrustDns", "HostbasedAcceptedAlgorithms",
    "HostbasedKeyTypes", "IPQoS", "KbdInteractiveAuthentication", "KbdInteractiveDevices", "KeepAlive",
    "KeyRegenerationInterval", "LocalCommand", "LocalForward", "LogLevel", "LogVerbose", "NumberOfPasswordPrompts",
    "ObscureKeystrokeTiming", "PasswordAuthentication", "PermitLocalCommand", "PermitRemoteOpen", "Protocol",
    "ProtocolKeepAlives",
    "RekeyLimit", "RemoteCommand", "RemoteForward", "RequestTTY", "RhostsAuthentication",
    "RhostsRSAAuthentication", "RSAAuthentication", "SendEnv", "ServerAliveCountMax", "ServerAliveInterval",
    "SessionType", "SetEnv", "SetupTimeOut", "SkeyAuthentication", "StdinNull", "StreamLocalBindMask",
    "StreamLocalBindUnlink",
    "SyslogFacility", "TCPKeepAlive", "TISAuthentication", "Tunnel", "TunnelDevice", "UpdateHostKeys",
    "UsePrivilegedPort", "UseRoaming", "UseRsh", "UseKeychain", "VersionAddendum", "VisualHostKey", "WarnWeakCrypto",
    "XAuthLocation",
)  # fmt: skip
"""What is about terminals, forwarding, passwords and the like, of which rbee has no need."""
ALIASES: Final = {
    "identityfile2": "identityfile",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "rsaminsize": "requiredrsasize",
    "smartcarddevice": "pkcs11provider",
}
"""Older names (readconf.c), and those of distributions."""
NAMES: Final = {name.lower(): name for name in (*HONOURED, *SAID, *SAID_OF_KEYS, *WITHOUT_EFFECT)}
TAKEN: Final = frozenset(name.lower() for name in (*HONOURED, *SAID, *SAID_OF_KEYS))
"""Those whose values are kept."""
NOT_ASKED_FOR: Final = {"verifyhostkeydns": ("no", "false", "ask"), "securitykeyprovider": ("internal",)}
_NOTHING: Final = ("no", "none", "false")


def asks(keyword: str, value: str) -> bool:
    """Whether this value of a keyword, in lower case, asks for anything."""
    return value.lower() not in NOT_ASKED_FOR.get(keyword, _NOTHING)
