package losetup

import (
	"fmt"
	"slices"
	"strings"
)

// argument says whether an option has an argument.
type argument int

const (
	none     argument = iota
	required          // --name=VALUE, --name VALUE, -nVALUE, -n VALUE
	optional          // only --name=VALUE
	attached          // util-linux 2.41 requires it, 2.42 has none: --name=VALUE, -nDEVICE
)

// option is an option of the command line.
type option struct {
	long  string
	short byte // 0 for none
	arg   argument
}

// usageError is an error of the command line's form, as getopt_long(3) reports it.
type usageError struct{ text string }

// Error implements error.
func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// scanner splits a command line as getopt_long(3) does: operands may come before options,
// "--" ends the options, and a long name may be cut short.
type scanner struct {
	options  []option
	args     []string
	operands []string
}

// each calls take with each option and its value, in order. value is nil without a value.
func (s *scanner) each(take func(o *option, value *string) error) error {
	for len(s.args) > 0 {
		arg := s.args[0]
		s.args = s.args[1:]
		var err error
		switch {
		case arg == "--":
			s.operands = append(s.operands, s.args...)
			return nil
		case strings.HasPrefix(arg, "--"):
			err = s.long(arg[2:], take)
		case strings.HasPrefix(arg, "-") && arg != "-":
			err = s.cluster(arg[1:], take)
		default:
			s.operands = append(s.operands, arg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// long takes an option with a long name.
func (s *scanner) long(text string, take func(*option, *string) error) error {
	name, value, hasValue := strings.Cut(text, "=")
	o, err := s.find(name)
	switch {
	case err != nil:
		return err
	case hasValue && o.arg == none:
		return usagef("option '--%s' doesn't allow an argument", o.long)
	case hasValue:
		return take(o, &value)
	case o.arg != required:
		return take(o, nil)
	case len(s.args) == 0:
		return usagef("option '--%s' requires an argument", o.long)
	}
	return take(o, s.next())
}

// find returns the option with a long name, or the only one that begins with it.
func (s *scanner) find(name string) (*option, error) {
	var found []*option
	for i := range s.options {
		o := &s.options[i]
		if o.long == name {
			return o, nil
		}
		if strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, usagef("unrecognized option '--%s'", name)
	case 1:
		return found[0], nil
	}
	possible := ""
	for _, o := range found {
		possible += " '--" + o.long + "'"
	}
	return nil, usagef("option '--%s' is ambiguous; possibilities:%s", name, possible)
}

// cluster takes the options of an argument with short names.
func (s *scanner) cluster(text string, take func(*option, *string) error) error {
	for text != "" {
		i := slices.IndexFunc(s.options, func(o option) bool { return o.short == text[0] && o.short != 0 })
		if i < 0 {
			return usagef("invalid option -- '%c'", text[0])
		}
		o, rest := &s.options[i], text[1:]
		var value *string
		switch {
		case o.arg == required && rest == "" && len(s.args) == 0:
			return usagef("option requires an argument -- '%c'", o.short)
		case o.arg == required && rest == "":
			value = s.next()
		case o.arg == required, o.arg == attached && looksLikeDevice(rest):
			whole := rest
			value, rest = &whole, ""
		}
		if err := take(o, value); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// next returns the next argument.
func (s *scanner) next() *string {
	value := s.args[0]
	s.args = s.args[1:]
	return &value
}

// looksLikeDevice reports whether the text behind a short option is the name of a device,
// not further options.
func looksLikeDevice(text string) bool {
	return strings.HasPrefix(text, "/") || strings.HasPrefix(text, "ublkb")
}
