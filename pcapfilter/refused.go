package pcapfilter

// refusedWords are words of pcap-filter(7) that cannot be compiled, and why.
var refusedWords = func() map[string]string {
	words := make(map[string]string)
	for _, r := range []struct {
		why   string
		words []string
	}{
		{"following the chain of headers takes a loop, which a filter in the kernel cannot have", []string{"protochain"}},
		{"it looks names up, and nothing is looked up here", []string{"gateway"}},
		{"it belongs to 802.11, and packets here are Ethernet or bare IP",
			[]string{"type", "subtype", "dir", "addr1", "addr2", "addr3", "addr4", "ra", "ta", "radio"}},
		{"it belongs to ATM, and packets here are Ethernet or bare IP",
			[]string{"lane", "metac", "bcc", "oam", "oamf4", "oamf4ec", "oamf4sc", "sc", "ilmic", "vpi", "vci", "connectmsg", "metaconnect"}},
		{"it belongs to SS7, and packets here are Ethernet or bare IP",
			[]string{"fisu", "lssu", "msu", "hfisu", "hlssu", "hmsu", "sio", "opc", "dpc", "sls", "hsio", "hopc", "hdpc", "hsls"}},
		{"it belongs to the logs of BSD's packet filter", []string{"ifname", "rset", "rnr", "srnr", "reason", "action"}},
		{"it is no part of the packet", []string{"inbound", "outbound", "ifindex"}},
		{"this compiler does not look into that tunnel", []string{"geneve", "vxlan"}},
		{"this compiler does not know these PDUs", []string{"llc", "esis", "isis", "clnp", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp"}},
		{"write ether[n] with a comparison", []string{"byte"}},
	} {
		for _, w := range r.words {
			words[w] = r.why
		}
	}
	return words
}()
