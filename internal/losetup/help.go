package losetup

import (
	"fmt"
	"strings"
)

// help prints the options and the columns.
func (c *Command) help() error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nUsage:\n %[1]s [options] [<loopdev>]\n %[1]s [options] -f | <loopdev> <file>\n", c.Name)
	fmt.Fprint(&b, "\nSet up and control loop devices of ublk-loop, /dev/ublkbN.\n\nOptions:\n", optionHelp)
	fmt.Fprint(&b, "\nAvailable output columns:\n")
	for _, col := range columns {
		fmt.Fprintf(&b, " %12s  %s\n", col.name, col.help)
	}
	fmt.Fprint(&b, "\nFor more details see losetup(8) and ublk-loop(8).\n")
	_, err := fmt.Fprint(c.Out, b.String())
	return err
}

const optionHelp = ` -a, --all                     list all devices
 -c, --set-capacity <loopdev>  give a device the size of its file
 -d, --detach <loopdev>...     detach devices; one in use goes with its last user
 -D, --detach-all              detach all devices
 -f, --find                    print the next unused device, or attach a file to it
 -j, --associated <file>       list the devices of a file
 -L, --nooverlap               use the device that has the same part of the file

 -o, --offset <num>            start of the device in the file
     --sizelimit <num>         maximum size of the device
 -b, --sector-size <num>       logical sector size
 -P, --partscan                let the kernel look for partitions
 -r, --read-only               make a read-only device
     --direct-io[=<on|off>]    bypass the page cache of the file
     --loop-ref <string>       text that names the device
     --show                    print the path of the new device

 -J, --json                    list as JSON
 -l, --list                    list as a table (default)
 -n, --noheadings              print no headings
 -O, --output <cols>           columns to list
     --output-all              list all columns
     --raw                     list without alignment

 -h, --help                    print this help
 -V, --version                 print the version
`
