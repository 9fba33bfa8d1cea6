// Package helptext lays out the help of commands in the width of a terminal, and completes
// the values of flags and the names of devices.
//
// The text of a flag has the name of its value in backquotes, as in package pflag, or the
// name is the type of the value. A name such as auto|on|off lists the values.
package helptext
