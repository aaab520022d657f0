package twin

import (
	"context"
	"fmt"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

// organization brings a population's records into the Dataverse twin.
type organization struct {
	ctx    context.Context
	server *dataverse.Server

	table   *dataverse.Loader
	row     []value.Value
	rows    int
	members map[string]*dataverse.Loader // by member table
}

func newOrganization(ctx context.Context, s *dataverse.Server) *organization {
	return &organization{ctx: ctx, server: s, members: map[string]*dataverse.Loader{}}
}

// admit makes the product's application a user of the organization.
func (o *organization) admit(clientID string) error {
	_, err := o.server.AddApplicationUser(dataverse.AppUser{ClientID: clientID, Name: "Lockstep"})
	return err
}

func (o *organization) Begin(table string, columns []population.Column) error {
	if err := o.closeTable(); err != nil {
		return err
	}
	names := []string{table + "id"}
	for _, c := range columns {
		if c.Name == "parentcustomerid" { // points to one of several tables
			c.Name += "_" + c.Target
		}
		names = append(names, c.Name)
	}
	var err error
	o.table, err = o.server.Loader(table, names)
	return err
}

func (o *organization) Row(id value.ID, values []value.Value) error {
	if o.rows++; o.rows%4096 == 0 && o.ctx.Err() != nil {
		return o.ctx.Err()
	}
	o.row = append(append(o.row[:0], value.GUID(id)), values...)
	return o.table.Append(o.row...)
}

func (o *organization) Members(list value.ID, memberTable string, members []value.ID) error {
	if err := o.closeTable(); err != nil { // the lists must be there to count their members
		return err
	}
	if err := o.ctx.Err(); err != nil {
		return err
	}
	l := o.members[memberTable]
	if l == nil {
		var err error
		if l, err = o.server.Loader("listmember", []string{"listid", "entityid_" + memberTable}); err != nil {
			return err
		}
		o.members[memberTable] = l
	}
	for _, m := range members {
		if err := l.Append(value.GUID(list), value.GUID(m)); err != nil {
			return fmt.Errorf("list %s: %w", list, err)
		}
	}
	return nil
}

func (o *organization) closeTable() error {
	if o.table == nil {
		return nil
	}
	l := o.table
	o.table = nil
	return l.Close()
}

// finish makes visible what is not yet.
func (o *organization) finish() error {
	if err := o.closeTable(); err != nil {
		return err
	}
	for _, table := range []string{"account", "contact", "lead"} {
		if l := o.members[table]; l != nil {
			if err := l.Close(); err != nil {
				return err
			}
		}
	}
	o.server.Seal()
	return o.ctx.Err()
}
