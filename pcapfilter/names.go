package pcapfilter

// keywords are the words of the language (libpcap's scanner.l), with the
// spelling that the parser knows them by.
var keywords = map[string]string{
	"src": "src", "dst": "dst",
	"link": "ether", "ether": "ether", "ppp": "ether", "slip": "ether", "fddi": "ether", "tr": "ether", "wlan": "ether",
	"arp": "arp", "rarp": "rarp", "ip": "ip", "sctp": "sctp", "tcp": "tcp", "udp": "udp",
	"icmp": "icmp", "igmp": "igmp", "igrp": "igrp", "pim": "pim", "vrrp": "vrrp", "carp": "carp", "radio": "radio",
	"ip6": "ip6", "icmp6": "icmp6", "ah": "ah", "esp": "esp",
	"atalk": "atalk", "aarp": "aarp", "decnet": "decnet", "lat": "lat", "sca": "sca", "moprc": "moprc", "mopdl": "mopdl",
	"iso": "iso", "esis": "esis", "es-is": "esis", "isis": "isis", "is-is": "isis", "clnp": "clnp",
	"l1": "l1", "l2": "l2", "iih": "iih", "lsp": "lsp", "snp": "snp", "csnp": "csnp", "psnp": "psnp",
	"stp": "stp", "ipx": "ipx", "netbeui": "netbeui",
	"host": "host", "net": "net", "mask": "mask", "port": "port", "portrange": "portrange",
	"proto": "proto", "protochain": "protochain", "gateway": "gateway",
	"type": "type", "subtype": "subtype", "direction": "dir", "dir": "dir",
	"address1": "addr1", "addr1": "addr1", "address2": "addr2", "addr2": "addr2",
	"address3": "addr3", "addr3": "addr3", "address4": "addr4", "addr4": "addr4", "ra": "ra", "ta": "ta",
	"less": "less", "greater": "greater", "byte": "byte", "broadcast": "broadcast", "multicast": "multicast",
	"and": "and", "or": "or", "not": "not", "len": "len", "length": "len",
	"inbound": "inbound", "outbound": "outbound", "ifindex": "ifindex",
	"vlan": "vlan", "mpls": "mpls", "pppoed": "pppoed", "pppoes": "pppoes", "geneve": "geneve", "vxlan": "vxlan",
	"lane": "lane", "llc": "llc", "metac": "metac", "bcc": "bcc", "oam": "oam", "oamf4": "oamf4", "oamf4ec": "oamf4ec",
	"oamf4sc": "oamf4sc", "sc": "sc", "ilmic": "ilmic", "vpi": "vpi", "vci": "vci",
	"connectmsg": "connectmsg", "metaconnect": "metaconnect",
	"on": "ifname", "ifname": "ifname", "rset": "rset", "ruleset": "rset", "rnr": "rnr", "rulenum": "rnr",
	"srnr": "srnr", "subrulenum": "srnr", "reason": "reason", "action": "action",
	"fisu": "fisu", "lssu": "lssu", "lsu": "lssu", "msu": "msu", "hfisu": "hfisu", "hlssu": "hlssu", "hmsu": "hmsu",
	"sio": "sio", "opc": "opc", "dpc": "dpc", "sls": "sls", "hsio": "hsio", "hopc": "hopc", "hdpc": "hdpc", "hsls": "hsls",
}

// numbers are names of numbers (pcap-filter(7), "expr relop expr").
var numbers = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08,
	"tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,

	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16,
	"icmp-maskreq": 17, "icmp-maskreply": 18,

	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140,
	"icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142,
	"icmp6-multicastlistenerreportv2": 143, "icmp6-homeagentdiscoveryrequest": 144,
	"icmp6-homeagentdiscoveryreply": 145, "icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147,
	"icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149, "icmp6-multicastrouteradvert": 151,
	"icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
}

// Protocol numbers (IANA): Ethernet types, 802.2 service access points, and
// what stands in IPv4's protocol and IPv6's next header.
const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherRARP  = 0x8035
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100
	etherQinQ  = 0x88a8
	etherVLAN2 = 0x9100
	etherMPLS  = 0x8847
	etherPPPoD = 0x8863
	etherPPPoS = 0x8864
	etherIPX   = 0x8137
	etherATalk = 0x809b
	etherAARP  = 0x80f3
	etherDN    = 0x6003
	lastLength = 1500 // a smaller type is the length of an 802.3 frame

	sapSTP     = 0x42
	sapIPX     = 0xe0
	sapNetBEUI = 0xf0
	sapISO     = 0xfe
	sapIP      = 0x06

	ipFragment = 44
	ipICMPv6   = 58
	ipTCP      = 6
	ipUDP      = 17
	ipSCTP     = 132
)

// linkProtocols are the protocols right above the link layer, as abbreviations
// and behind "ether proto \".
var linkProtocols = map[string]uint32{
	"ip": etherIPv4, "ip6": etherIPv6, "arp": etherARP, "rarp": etherRARP,
	"atalk": etherATalk, "aarp": etherAARP, "decnet": etherDN, "lat": 0x6004, "sca": 0x6007,
	"mopdl": 0x6001, "moprc": 0x6002, "loopback": 0x9000,
	"iso": sapISO, "stp": sapSTP, "ipx": sapIPX, "netbeui": sapNetBEUI,
}

// transports are the protocols above IP: their number, and which IP the
// abbreviation means.
var transports = map[string]struct {
	num  uint32
	only string // "ip", "ip6" or "" for both
}{
	"tcp": {ipTCP, ""}, "udp": {ipUDP, ""}, "sctp": {ipSCTP, ""},
	"ah": {51, ""}, "esp": {50, ""}, "pim": {103, ""},
	"icmp": {1, "ip"}, "igmp": {2, "ip"}, "igrp": {9, "ip"}, "vrrp": {112, "ip"}, "carp": {112, "ip"},
	"icmp6": {ipICMPv6, "ip6"},
}

// ipProtocols are names for "proto \", as Debian's /etc/protocols has them. The
// file itself is not read: a filter means the same on every host.
var ipProtocols = map[string]uint32{
	"ip": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ipencap": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "udp": 17,
	"dccp": 33, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51,
	"ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "eigrp": 88, "ospf": 89, "ipip": 94, "etherip": 97,
	"pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "mobility-header": 135,
	"udplite": 136, "mpls-in-ip": 137, "hip": 139, "shim6": 140,
}

// A service is a name for a port. Libpcap asks for its TCP and its UDP port and
// takes both protocols where they are one number.
type service struct{ tcp, udp uint16 }

// services are names for ports, as Debian's /etc/services has them.
var services = map[string]service{
	"echo": {7, 7}, "discard": {9, 9}, "daytime": {13, 13}, "chargen": {19, 19},
	"ftp-data": {20, 0}, "ftp": {21, 0}, "ssh": {22, 0}, "telnet": {23, 0}, "smtp": {25, 0}, "time": {37, 37},
	"whois": {43, 0}, "domain": {53, 53}, "bootps": {0, 67}, "bootpc": {0, 68}, "tftp": {0, 69},
	"finger": {79, 0}, "http": {80, 0}, "www": {80, 0}, "kerberos": {88, 88}, "pop3": {110, 0}, "sunrpc": {111, 111},
	"auth": {113, 0}, "nntp": {119, 0}, "ntp": {0, 123}, "netbios-ns": {0, 137}, "netbios-dgm": {0, 138},
	"netbios-ssn": {139, 0}, "imap": {143, 0}, "imap2": {143, 0}, "snmp": {161, 161}, "snmp-trap": {162, 162},
	"snmptrap": {162, 162}, "bgp": {179, 0}, "ldap": {389, 389}, "https": {443, 443}, "microsoft-ds": {445, 0},
	"submissions": {465, 0}, "isakmp": {0, 500}, "exec": {512, 0}, "login": {513, 0}, "who": {0, 513},
	"shell": {514, 0}, "printer": {515, 0}, "route": {0, 520},
	"rtsp": {554, 554}, "submission": {587, 0}, "ipp": {631, 0}, "ldaps": {636, 636}, "domain-s": {853, 853},
	"rsync": {873, 0}, "imaps": {993, 0}, "pop3s": {995, 0}, "socks": {1080, 0}, "openvpn": {1194, 1194},
	"l2tp": {0, 1701}, "radius": {1812, 1812}, "radius-acct": {1813, 1813}, "nfs": {2049, 2049},
	"mysql": {3306, 0}, "ms-wbt-server": {3389, 0}, "ipsec-nat-t": {0, 4500}, "sip": {5060, 5060},
	"sip-tls": {5061, 5061}, "mdns": {0, 5353}, "postgresql": {5432, 0}, "x11": {6000, 0}, "redis": {6379, 0},
	"syslog-tls": {6514, 0}, "http-alt": {8080, 0}, "git": {9418, 0}, "zabbix-agent": {10050, 0},
}
