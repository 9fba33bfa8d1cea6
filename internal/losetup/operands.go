package losetup

import "errors"

var errNoDevice = errors.New("no loop device specified")

// takeOperands finds out from the number of operands which form of the command line it is,
// and takes them.
func (p *parser) takeOperands(operands []string) error {
	switch {
	case p.action == findFree && len(operands) > 0:
		if len(operands) > 1 {
			return errors.New("unexpected arguments")
		}
		p.action, p.file = create, operands[0]
		return nil
	case p.action == setCapacity, p.action == detach, p.action == remove:
		p.devices = append(p.devices, operands...)
		if len(p.devices) == 0 {
			return errNoDevice
		}
		return nil
	case p.action != noAction:
		return nil
	case p.list && len(operands) == 0:
		p.action = show
		return nil
	case len(operands) == 1:
		p.devices, p.action = operands, p.actionForOne()
		return nil
	case len(operands) == 0:
		return errNoDevice
	}
	p.action, p.devices, p.file = create, operands[:1], operands[1]
	return nil
}

// actionForOne returns the action for a device alone: a change of it, or its description.
func (p *parser) actionForOne() action {
	switch {
	case p.directIO != "":
		return setDirectIO
	case p.hasBlockSize:
		return setBlockSize
	}
	return showOne
}

// check refuses options that have no effect on the action.
func (p *parser) check() error {
	isDirect := p.directIO == "on" && p.action != setDirectIO
	if p.action != create && (p.sizeLimit != 0 || p.partScan || p.readOnly || isDirect || p.show) {
		return errors.New("the options --{sizelimit,partscan,read-only,show} are allowed during loop device setup only")
	}
	if p.hasOffset && p.action != create && (p.action != show || !p.hasFile) {
		return errors.New("the option --offset is not allowed in this context")
	}
	return nil
}
