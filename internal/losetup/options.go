package losetup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/loop"
)

// action is what a command line asks for.
type action int

const (
	noAction action = iota
	create
	detach
	detachAll
	show    // all devices, or those of a file
	showOne // one device
	findFree
	setCapacity
	setDirectIO
	setBlockSize
	remove
	help
	version
)

// request is a parsed command line.
type request struct {
	action  action
	devices []string // names as given
	file    string
	// hasFile is for showing the devices of a file.
	hasFile   bool
	list      bool // print a table, raw lines or JSON, not the old format
	format    format
	columns   []*column
	nooverlap bool
	show      bool

	offset, sizeLimit, blockSize          uint64
	hasOffset, hasSizeLimit, hasBlockSize bool
	partScan, readOnly                    bool
	directIO                              loop.Switch // empty unless it is given
	ref                                   string
}

// options are the options of losetup. Where the versions differ, both are accepted: -c and
// -d take their device from the same argument or from the operands, and -v has no effect.
var options = []option{
	{"all", 'a', none},
	{"set-capacity", 'c', attached},
	{"detach", 'd', attached},
	{"detach-all", 'D', none},
	{"find", 'f', none},
	{"nooverlap", 'L', none},
	{"help", 'h', none},
	{"associated", 'j', required},
	{"json", 'J', none},
	{"list", 'l', none},
	{"sector-size", 'b', required},
	{"noheadings", 'n', none},
	{"offset", 'o', required},
	{"output", 'O', required},
	{"output-all", 0, none},
	{"sizelimit", 0, required},
	{"partscan", 'P', none},
	{"read-only", 'r', none},
	{"direct-io", 0, optional},
	{"raw", 0, none},
	{"loop-ref", 0, required},
	{"show", 0, none},
	{"verbose", 'v', none},
	{"version", 'V', none},
	{"remove", 0, none},
}

// exclusive are options of which a command line has at most one.
var exclusive = [][]string{
	{"detach-all", "all", "set-capacity", "detach", "find", "associated", "remove"},
	{"detach-all", "set-capacity", "detach", "find", "list", "remove"},
	{"detach-all", "output", "set-capacity", "detach", "find", "remove"},
	{"json", "raw"},
}

// parser collects the options of a command line.
type parser struct {
	request
	given     []string // long names, in order
	outputs   *string  // the argument of --output
	outputAll bool
}

// parse parses a command line.
func parse(args []string) (*request, error) {
	p := &parser{}
	s := &scanner{options: options, args: args}
	if err := s.each(p.take); err != nil {
		return nil, err
	}
	if p.action == help || p.action == version {
		return &p.request, nil
	}
	if len(args) == 0 || p.action == noAction && len(args) == 1 && (p.format.json || p.format.raw) {
		p.action, p.list = show, true
	}
	p.columns = p.defaultColumns()
	if err := p.takeOperands(s.operands); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return &p.request, p.chooseColumns()
}

// take takes an option.
func (p *parser) take(o *option, value *string) error {
	if p.action == help || p.action == version {
		return nil // losetup stops at these
	}
	if err := p.checkExclusive(o.long); err != nil {
		return err
	}
	p.given = append(p.given, o.long)
	switch o.arg {
	case none:
		p.takeSwitch(o.long)
		return nil
	case attached:
		p.action = map[string]action{"set-capacity": setCapacity, "detach": detach}[o.long]
		if value != nil {
			p.devices = append(p.devices, *value)
		}
		return nil
	}
	return p.takeValue(o.long, value)
}

// checkExclusive returns an error if an option excludes one that came before it.
func (p *parser) checkExclusive(name string) error {
	for _, group := range exclusive {
		if !slices.Contains(group, name) {
			continue
		}
		for _, before := range p.given {
			if before != name && slices.Contains(group, before) {
				return fmt.Errorf("options --%s and --%s cannot be combined", before, name)
			}
		}
	}
	return nil
}

// takeSwitch takes an option without a value.
func (p *parser) takeSwitch(name string) {
	switch name {
	case "all":
		p.action = show
	case "detach-all":
		p.action = detachAll
	case "find":
		p.action = findFree
	case "remove":
		p.action = remove
	case "help":
		p.action = help
	case "version":
		p.action = version
	case "nooverlap":
		p.nooverlap = true
	case "json":
		p.format.json = true
	case "raw":
		p.format.raw = true
	case "noheadings":
		p.format.noHeadings = true
	case "list":
		p.list = true
	case "output-all":
		p.list, p.outputAll = true, true
	case "partscan":
		p.partScan = true
	case "read-only":
		p.readOnly = true
	case "show":
		p.show = true
	}
}

// takeValue takes an option with a value. value is nil only for --direct-io.
func (p *parser) takeValue(name string, value *string) (err error) {
	switch name {
	case "direct-io":
		p.directIO, err = parseDirectIO(value)
	case "associated":
		p.action, p.file, p.hasFile = show, *value, true
	case "loop-ref":
		p.ref = *value
	case "output":
		p.list, p.outputs = true, value
	case "sector-size":
		p.hasBlockSize = true
		p.blockSize, err = parseSizeOf("failed to parse logical block size", *value)
	case "offset":
		p.hasOffset = true
		p.offset, err = parseSizeOf("failed to parse offset", *value)
	case "sizelimit":
		p.hasSizeLimit = true
		p.sizeLimit, err = parseSizeOf("failed to parse size", *value)
	}
	return err
}

func parseSizeOf(what, text string) (uint64, error) {
	size, err := parseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%s: '%s': %s", what, text, errnoText(err))
	}
	return size, nil
}

func parseDirectIO(value *string) (loop.Switch, error) {
	switch {
	case value == nil, strings.EqualFold(*value, "on"):
		return loop.SwitchOn, nil
	case strings.EqualFold(*value, "off"):
		return loop.SwitchOff, nil
	}
	return "", fmt.Errorf("unsupported argument: %s", *value)
}
