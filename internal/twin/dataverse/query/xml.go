package query

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// element is one node of a FetchXML or cookie text.
type element struct {
	name  string
	attrs []xml.Attr
	kids  []*element
	text  string
}

func (e *element) attr(name string) (string, bool) {
	for i := range e.attrs {
		if e.attrs[i].Name.Local == name {
			return e.attrs[i].Value, true
		}
	}
	return "", false
}

// get returns an attribute's text, "" when absent.
func (e *element) get(name string) string {
	s, _ := e.attr(name)
	return s
}

// flag reads a Boolean attribute: true, false, 1 or 0; absent is false.
func (e *element) flag(name string) (bool, error) {
	switch s, ok := e.attr(name); {
	case !ok || s == "false" || s == "0":
		return false, nil
	case s == "true" || s == "1":
		return true, nil
	}
	return false, refuse(CodeInvalidQuery, "Invalid XML: the attribute '%s' of '%s' must be true or false.", name, e.name)
}

// parseXML reads a text into elements. It takes no document type, no entities
// beyond XML's own five, no text above MaxFetchBytes and no nesting above
// MaxFetchDepth.
func parseXML(text string) (*element, error) {
	if len(text) > MaxFetchBytes {
		return nil, refuse(CodeInvalidQuery, "Invalid XML: the text is longer than %d bytes.", MaxFetchBytes)
	}
	d := xml.NewDecoder(strings.NewReader(text))
	var root *element
	var open []*element
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, refuse(CodeInvalidQuery, "Invalid XML: %v.", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			e := &element{name: tok.Name.Local, attrs: tok.Attr}
			for i := range e.attrs {
				for j := range i {
					if e.attrs[i].Name == e.attrs[j].Name {
						return nil, refuse(CodeInvalidQuery, "Invalid XML: the attribute '%.80s' is given twice.", e.attrs[i].Name.Local)
					}
				}
			}
			switch {
			case len(open) >= MaxFetchDepth:
				return nil, refuse(CodeInvalidQuery, "Invalid XML: elements are nested more than %d deep.", MaxFetchDepth)
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.kids = append(parent.kids, e)
			case root != nil:
				return nil, refuse(CodeInvalidQuery, "Invalid XML: there is more than one root element.")
			default:
				root = e
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			s := string(tok)
			if len(open) > 0 {
				open[len(open)-1].text += s
			} else if strings.TrimLeft(s, "\ufeff \t\r\n") != "" {
				return nil, refuse(CodeInvalidQuery, "Invalid XML: there is text outside of the root element.")
			}
		case xml.Directive:
			return nil, refuse(CodeInvalidQuery, "Invalid XML: a document type is not allowed.")
		}
	}
	if root == nil {
		return nil, refuse(CodeInvalidQuery, "Invalid XML: the root element is missing.")
	}
	return root, nil
}
