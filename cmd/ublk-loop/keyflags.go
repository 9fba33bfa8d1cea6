package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// keyFlags names the place of a key. At most one place may be given.
type keyFlags struct {
	source keysource.Source
	given  map[string]bool // names of the given flags
}

// keySources lists the flags that name the source of a key.
var keySources = []struct {
	flag string
	kind keysource.Kind
}{
	{"key-file", keysource.File},
	{"key-fd", keysource.Descriptor},
	{"key-description", keysource.Keyring},
}

func (o *keyFlags) addFlags(f *pflag.FlagSet) {
	s := &o.source
	f.StringVar(&s.File, "key-file", "", "read the key, or the passphrase of a LUKS volume, from the whole of `FILE` (-: standard\ninput)")
	f.Var(fdFlag{&s.FD}, "key-fd", "read the key from the open descriptor N, to its end")
	f.StringVar(&s.Description, "key-description", "", "take the key of type user with the description `TEXT` from the kernel's keyrings")
	f.Var(sizeFlag{&s.Offset}, "keyfile-offset", "number of bytes before the key in its file or descriptor")
	f.Var(sizeFlag{&s.Size}, "keyfile-size", "length of the key in its file or descriptor (default: all that follows)")
	f.StringVar(&s.Header, "header", "", "read the LUKS header from `FILE`, not from the volume")
	f.BoolVar(&s.Strict, "strict-key", false, "refuse a key file that other users can read, instead of a warning")
}

// check records which flags are given. It refuses a flag that has no effect, and more
// than one place.
func (o *keyFlags) check(cmd *cobra.Command) error {
	o.given = map[string]bool{}
	cmd.Flags().Visit(func(flag *pflag.Flag) { o.given[flag.Name] = true })
	var flags []string
	for _, p := range keySources {
		if o.given[p.flag] {
			flags = append(flags, p.flag)
			o.source.Kind = p.kind
		}
	}
	switch {
	case len(flags) > 1:
		return report.Usage(fmt.Errorf("--%s and --%s are mutually exclusive", flags[0], flags[1]), helpHint(cmd))
	case (o.given["keyfile-offset"] || o.given["keyfile-size"]) && !o.given["key-file"] && !o.given["key-fd"]:
		return report.Usage(errors.New("--keyfile-offset and --keyfile-size need --key-file or --key-fd"), helpHint(cmd))
	case o.given["header"] && o.source.Header == "":
		return report.Usage(errors.New("--header: not the path of a file"), helpHint(cmd))
	case o.source.Strict && (!o.given["key-file"] || o.source.File == "-"):
		return report.Usage(errors.New("--strict-key needs the path of a file with --key-file"), helpHint(cmd))
	}
	return nil
}
