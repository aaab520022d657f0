package dataverse

import (
	"strings"
	"testing"
)

func TestSolutions(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"no prefix":                       `{"uniquename":"acme","friendlyname":"Acme","customizationoptionvalueprefix":20000}`,
		"a prefix too long":               `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"acmecorps","customizationoptionvalueprefix":20000}`,
		"a prefix too short":              `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"a","customizationoptionvalueprefix":20000}`,
		"the platform's prefix":           `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"mscrmx","customizationoptionvalueprefix":20000}`,
		"a prefix with a hyphen":          `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"ac-me","customizationoptionvalueprefix":20000}`,
		"an option prefix of four digits": `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"acme","customizationoptionvalueprefix":2000}`,
		"no option prefix":                `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"acme"}`,
		"a unique name with a blank":      `{"uniquename":"ac me","friendlyname":"Acme","customizationprefix":"acme","customizationoptionvalueprefix":20000}`,
	} {
		if r := w.do("POST", "publishers", body); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	publisher := w.create("publishers", `{"uniquename":"acme","friendlyname":"Acme","customizationprefix":"acme","customizationoptionvalueprefix":20000}`)
	w.do("POST", "publishers", `{"uniquename":"Acme","friendlyname":"Acme","customizationprefix":"acme","customizationoptionvalueprefix":20000}`).refused(412, "0x80040237")
	w.do("POST", "solutions", `{"uniquename":"Boxes","friendlyname":"Boxes","version":"1.0.0.0"}`).refused(400, "0x80040200")
	w.do("POST", "solutions", `{"uniquename":"Boxes","friendlyname":"Boxes","version":"one","publisherid@odata.bind":"/publishers(`+publisher+`)"}`).refused(400, "0x80040203")
	boxes := w.create("solutions", `{"uniquename":"Boxes","friendlyname":"Boxes","version":"1.0.0.0","publisherid@odata.bind":"/publishers(`+publisher+`)"}`)
	w.do("POST", "solutions", `{"uniquename":"boxes","friendlyname":"Boxes","version":"1.0.0.0","publisherid@odata.bind":"/publishers(`+publisher+`)"}`).refused(412, "0x80040237")

	table := func(prefix, language string) string {
		label := strings.ReplaceAll(lbl, "1033", language)
		return `{"@odata.type":"Microsoft.Dynamics.CRM.EntityMetadata","SchemaName":"` + prefix + `_Box","OwnershipType":"UserOwned","DisplayName":` + label + `,"DisplayCollectionName":` + label +
			`,"Attributes":[{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"` + prefix + `_Name","IsPrimaryName":true,"MaxLength":100}]}`
	}
	const in = "MSCRM.SolutionUniqueName"
	w.do("POST", "EntityDefinitions", table("acme", "1033"), in, "Nothing").refused(400, "0x80040203")
	w.do("POST", "EntityDefinitions", table("other", "1033"), in, "Boxes").refused(400, "0x80040203")
	w.do("POST", "EntityDefinitions", table("acme", "1031"), in, "Boxes").refused(400, "0x80048d19")
	w.do("POST", "EntityDefinitions", table("acme", "1033"), in, "Boxes").must(204)
	w.do("POST", "EntityDefinitions(LogicalName='contact')/Attributes", `{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"acme_Size","MaxLength":10}`, in, "Boxes").must(204)
	w.do("POST", "EntityDefinitions(LogicalName='acme_box')/Keys", `{"@odata.type":"Microsoft.Dynamics.CRM.EntityKeyMetadata","SchemaName":"acme_Key","KeyAttributes":["acme_name"],"DisplayName":`+lbl+`}`, in, "Boxes").must(204)
	w.do("POST", "EntityDefinitions(LogicalName='contact')/Attributes", `{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"acme_Loose","MaxLength":10}`).must(204)
	kinds := func() string {
		var all []any
		for _, r := range w.get("solutioncomponents?$select=componenttype&$filter=_solutionid_value%20eq%20" + boxes + "&$orderby=componenttype").must(200).rows() {
			all = append(all, r["componenttype"])
		}
		return words(all...)
	}
	if got := kinds(); got != "1 2 14" {
		t.Errorf("components %s", got)
	}
	w.do("DELETE", "EntityDefinitions(LogicalName='contact')/Attributes(LogicalName='acme_size')", "").must(204)
	if got := kinds(); got != "1 14" {
		t.Errorf("components %s", got)
	}
	w.do("DELETE", "publishers("+publisher+")", "").refused(400, "0x80040227")
	w.do("DELETE", "solutions("+boxes+")", "").must(204)
	w.get("EntityDefinitions(LogicalName='acme_box')?$select=LogicalName").must(200)
	w.do("DELETE", "publishers("+publisher+")", "").must(204)
	w.do("POST", "ImportSolution", `{}`).refused(501, "0x80040219")
}
