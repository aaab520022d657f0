package schema

const (
	trillion        = 1_000_000_000_000
	hundredTrillion = 100 * trillion
	billion         = 1_000_000_000
)

const industries = "1 Accounting|2 Agriculture and Non-petrol Natural Resource Extraction|3 Broadcasting Printing and Publishing|4 Brokers|5 Building Supply Retail|" +
	"6 Business Services|7 Consulting|8 Consumer Services|9 Design, Direction and Creative Management|10 Distributors, Dispatchers and Processors|" +
	"11 Doctor's Offices and Clinics|12 Durable Manufacturing|13 Eating and Drinking Places|14 Entertainment Retail|15 Equipment Rental and Leasing|16 Financial|" +
	"17 Food and Tobacco Processing|18 Inbound Capital Intensive Processing|19 Inbound Repair and Services|20 Insurance|21 Legal Services|" +
	"22 Non-Durable Merchandise Retail|23 Outbound Consumer Service|24 Petrochemical Extraction and Distribution|25 Service Retail|26 SIG Affiliations|" +
	"27 Social Services|28 Special Outbound Trade Contractors|29 Specialty Realty|30 Transportation|31 Utility Creation and Distribution|32 Vehicle Retail|33 Wholesale"

// Apps says which first-party applications the organization has.
type Apps struct {
	// Sales adds lead, list, listmember, campaign and the campaign activities;
	// without it the environment is a bare Power Apps one.
	Sales bool
	// Subscriptions adds the custom table lsx_subscription, an example of what a
	// customer builds.
	Subscriptions bool
}

// Standard returns the schema of a freshly provisioned organization.
func Standard(apps Apps) *Schema {
	empty := &Schema{Version: 8_123_455, tables: map[string]*Table{}, nextCode: 10_000}
	s, err := empty.Change(func(d *Draft) error {
		b := &builder{d: d}
		b.platform()
		b.account()
		b.contact()
		if apps.Sales {
			b.lead()
			b.list()
			b.campaign()
		}
		if apps.Subscriptions {
			b.subscription()
		}
		b.relations(apps)
		b.relateRest()
		return nil
	})
	if err != nil {
		panic(err) // the declarations are constants
	}
	return s
}

// audit is what every table carries about its writes.
func audit() []*Column {
	return []*Column{
		readOnly(when("CreatedOn")), readOnly(lookup("CreatedBy", "systemuser")), readOnly(lookup("CreatedOnBehalfBy", "systemuser")),
		readOnly(when("ModifiedOn")), readOnly(lookup("ModifiedBy", "systemuser")), readOnly(lookup("ModifiedOnBehalfBy", "systemuser")),
		createOnly(whole("ImportSequenceNumber", -2147483648, 2147483647)), createOnly(day("OverriddenCreatedOn")),
		whole("TimeZoneRuleVersionNumber", -1, 2147483647), whole("UTCConversionTimeZoneCode", -1, 2147483647),
	}
}

// owned is what user-owned tables carry beside audit.
func owned() []*Column {
	owner := column("OwnerId", Owner)
	owner.Targets, owner.Required, owner.Label = []string{"systemuser", "team"}, SystemRequired, "Owner"
	return []*Column{
		owner, readOnly(lookup("OwningBusinessUnit", "businessunit")),
		readOnly(lookup("OwningUser", "systemuser")), readOnly(lookup("OwningTeam", "team")),
		guid("ProcessId"), guid("StageId"), Text("TraversedPath", 1250),
	}
}

func priced() []*Column {
	return []*Column{lookup("TransactionCurrencyId", "transactioncurrency"), readOnly(number("ExchangeRate", Decimal, 1e-10, 1e11, 10))}
}

func address(prefix string, types, shipping, freight string, nameMax int) []*Column {
	n := func(s string) string { return prefix + "_" + s }
	composite := readOnly(memo(n("Composite"), 1000))
	return []*Column{
		guid(n("AddressId")), choice(n("AddressTypeCode"), -1, types), Text(n("City"), 80), composite, Text(n("Country"), 80),
		Text(n("County"), 50), Text(n("Fax"), 50), choice(n("FreightTermsCode"), -1, freight),
		number(n("Latitude"), Double, -90, 90, 5), Text(n("Line1"), 250), Text(n("Line2"), 250), Text(n("Line3"), 250),
		number(n("Longitude"), Double, -180, 180, 5), Text(n("Name"), nameMax), Text(n("PostalCode"), 20),
		Text(n("PostOfficeBox"), 20), Text(n("PrimaryContactName"), 100), choice(n("ShippingMethodCode"), -1, shipping),
		Text(n("StateOrProvince"), 50), phone(n("Telephone1"), 50), phone(n("Telephone2"), 50), phone(n("Telephone3"), 50),
		Text(n("UPSZone"), 4), whole(n("UTCOffset"), -1500, 1500),
	}
}

const (
	addressTypes = "1 Bill To|2 Ship To|3 Primary|4 Other"
	shippingWays = "1 Airborne|2 DHL|3 FedEx|4 UPS|5 Postal Mail|6 Full Load|7 Will Call"
	freightTerms = "1 FOB|2 No Charge"
	oneDefault   = "1 Default Value"
	paymentTerms = "1 Net 30|2 2% 10, Net 30|3 Net 45|4 Net 60"
	contactWays  = "1 Any|2 Email|3 Phone|4 Fax|5 Mail"
	weekDays     = "0 Sunday|1 Monday|2 Tuesday|3 Wednesday|4 Thursday|5 Friday|6 Saturday"
	dayParts     = "1 Morning|2 Afternoon|3 Evening"
)

func permissions(bulkPostal bool) []*Column {
	out := []*Column{
		forbid("DoNotEMail", "Do not allow Emails"), forbid("DoNotBulkEMail", "Do not allow Bulk Emails"),
		forbid("DoNotPhone", "Do not allow Phone Calls"), forbid("DoNotFax", "Do not allow Faxes"),
		forbid("DoNotPostalMail", "Do not allow Mails"),
		labels(labelled(flag("DoNotSendMM", false), "Send Marketing Materials"), "Send", "Do Not Send"),
	}
	if bulkPostal {
		out = append(out, labels(labelled(flag("DoNotBulkPostalMail", false), "Do not allow Bulk Mails"), "No", "Yes"))
	}
	return out
}

func emails() []*Column {
	return []*Column{labelled(email("EMailAddress1"), "Email"), labelled(email("EMailAddress2"), "Email Address 2"), labelled(email("EMailAddress3"), "Email Address 3")}
}

func aging() []*Column {
	var out []*Column
	for _, n := range []string{"Aging30", "Aging60", "Aging90"} {
		out = append(out, readOnly(money(n, hundredTrillion)))
	}
	return out
}

func user(t *Table) *Table {
	t.ChangeTracking, t.Optimistic = true, true
	return t
}

func (b *builder) contact() {
	t := b.table("Contact", "contacts", 2, "ContactId", "fullname",
		[]*Column{
			require(Text("FirstName", 50), Recommended), Text("MiddleName", 50), require(Text("LastName", 50), ApplicationRequired),
			readOnly(Text("FullName", 160)), Text("Suffix", 10), Text("NickName", 100), Text("Salutation", 100),
			Text("YomiFirstName", 150), Text("YomiMiddleName", 150), Text("YomiLastName", 150), readOnly(Text("YomiFullName", 450)),
			labelled(Text("JobTitle", 100), "Job Title"), Text("Department", 100), Text("EmployeeId", 50), Text("GovernmentId", 50), Text("ExternalUserIdentifier", 50),
		},
		emails(),
		[]*Column{
			labelled(phone("Telephone1", 50), "Business Phone"), labelled(phone("Telephone2", 50), "Home Phone"), phone("Telephone3", 50),
			labelled(phone("MobilePhone", 50), "Mobile Phone"), phone("Home2", 50), phone("Business2", 50), phone("Company", 50), phone("Callback", 50),
			Text("Fax", 50), Text("Pager", 50), phone("AssistantPhone", 50), phone("ManagerPhone", 50),
			labelled(web("WebSiteUrl"), "Website"), web("FtpSiteUrl"), memo("Description", 2000),
			labelled(dateOnly("BirthDate"), "Birthday"), dateOnly("Anniversary"),
			labelled(choice("GenderCode", -1, "1 Male|2 Female"), "Gender"),
			labelled(choice("FamilyStatusCode", -1, "1 Single|2 Married|3 Divorced|4 Widowed"), "Marital Status"),
			labelled(choice("PreferredContactMethodCode", 1, contactWays), "Preferred Method of Contact"),
			choice("PreferredAppointmentDayCode", -1, weekDays), choice("PreferredAppointmentTimeCode", -1, dayParts),
			labelled(choice("AccountRoleCode", -1, "1 Decision Maker|2 Employee|3 Influencer"), "Role"),
			labelled(choice("LeadSourceCode", 1, oneDefault), "Lead Source"), choice("CustomerTypeCode", 1, oneDefault), choice("CustomerSizeCode", 1, oneDefault),
			choice("EducationCode", 1, oneDefault), choice("HasChildrenCode", 1, oneDefault), choice("ShippingMethodCode", 1, oneDefault),
			choice("TerritoryCode", 1, oneDefault), choice("PaymentTermsCode", -1, paymentTerms),
		},
		permissions(true),
		[]*Column{
			labels(flag("FollowEmail", true), "Do Not Allow", "Allow"), flag("MarketingOnly", false), flag("CreditOnHold", false),
			createOnly(flag("IsBackofficeCustomer", false)), flag("ParticipatesInWorkflow", false), readOnly(flag("Merged", false)),
			labelled(customer("ParentCustomerId"), "Company Name"), readOnly(lookup("AccountId", "account")), readOnly(lookup("ParentContactId", "contact")),
			lookup("PreferredSystemUserId", "systemuser"), readOnly(lookup("MasterId", "contact")), guid("SubscriptionId"),
			updateOnly(day("LastUsedInCampaign")),
			money("CreditLimit", hundredTrillion), money("AnnualIncome", hundredTrillion),
			whole("NumberOfChildren", 0, billion), Text("ChildrensNames", 255), Text("SpousesName", 100), Text("AssistantName", 100), Text("ManagerName", 100),
		},
		aging(),
		address("Address1", addressTypes, shippingWays, freightTerms, 200), address("Address2", oneDefault, oneDefault, oneDefault, 200),
		address("Address3", oneDefault, oneDefault, oneDefault, 200),
		standardStates(), owned(), priced(), audit(),
	)
	user(t)
}

func (b *builder) account() {
	t := b.table("Account", "accounts", 1, "AccountId", "name",
		[]*Column{
			labelled(require(Text("Name", 160), ApplicationRequired), "Account Name"), Text("YomiName", 160), labelled(Text("AccountNumber", 20), "Account Number"),
		},
		emails(),
		[]*Column{
			labelled(phone("Telephone1", 50), "Main Phone"), phone("Telephone2", 50), phone("Telephone3", 50), Text("Fax", 50),
			labelled(web("WebSiteURL"), "Website"), web("FtpSiteURL"), memo("Description", 2000), labelled(Text("SIC", 20), "SIC Code"),
			Text("TickerSymbol", 10), Text("StockExchange", 20),
			labelled(money("Revenue", hundredTrillion), "Annual Revenue"), money("MarketCap", hundredTrillion), money("CreditLimit", hundredTrillion),
			whole("NumberOfEmployees", 0, billion), whole("SharesOutstanding", 0, billion),
			Text("PrimaryTwitterId", 128), Text("PrimarySatoriId", 200),
			labelled(choice("IndustryCode", -1, industries), "Industry"),
			labelled(choice("CustomerTypeCode", -1, "1 Competitor|2 Consultant|3 Customer|4 Investor|5 Partner|6 Influencer|7 Press|8 Prospect|9 Reseller|10 Supplier|11 Vendor|12 Other"), "Relationship Type"),
			labelled(choice("AccountCategoryCode", -1, "1 Preferred Customer|2 Standard"), "Category"),
			choice("AccountClassificationCode", 1, oneDefault), choice("AccountRatingCode", 1, oneDefault), choice("BusinessTypeCode", 1, oneDefault),
			choice("CustomerSizeCode", 1, oneDefault), choice("ShippingMethodCode", 1, oneDefault), choice("TerritoryCode", 1, oneDefault),
			labelled(choice("OwnershipCode", -1, "1 Public|2 Private|3 Subsidiary|4 Other"), "Ownership"),
			choice("PaymentTermsCode", -1, paymentTerms), choice("PreferredContactMethodCode", 1, contactWays),
			choice("PreferredAppointmentDayCode", -1, weekDays), choice("PreferredAppointmentTimeCode", -1, dayParts),
		},
		permissions(true),
		[]*Column{
			labels(flag("FollowEmail", true), "Do Not Allow", "Allow"), flag("MarketingOnly", false), flag("CreditOnHold", false),
			flag("ParticipatesInWorkflow", false), readOnly(flag("Merged", false)), updateOnly(day("LastUsedInCampaign")),
			labelled(lookup("PrimaryContactId", "contact"), "Primary Contact"), labelled(lookup("ParentAccountId", "account"), "Parent Account"),
			readOnly(lookup("MasterId", "account")), lookup("PreferredSystemUserId", "systemuser"),
		},
		aging(),
		address("Address1", addressTypes, shippingWays, freightTerms, 200), address("Address2", oneDefault, oneDefault, oneDefault, 200),
		standardStates(), owned(), priced(), audit(),
	)
	user(t)
}

func (b *builder) lead() {
	t := b.table("Lead", "leads", 4, "LeadId", "fullname",
		[]*Column{
			labelled(require(Text("Subject", 300), ApplicationRequired), "Topic"), require(Text("FirstName", 50), Recommended), Text("MiddleName", 50),
			require(Text("LastName", 50), ApplicationRequired), readOnly(Text("FullName", 160)),
			Text("YomiFirstName", 150), Text("YomiMiddleName", 150), Text("YomiLastName", 150), readOnly(Text("YomiFullName", 450)),
			require(Text("CompanyName", 100), Recommended), Text("YomiCompanyName", 100), Text("Salutation", 100), labelled(Text("JobTitle", 100), "Job Title"),
		},
		emails(),
		[]*Column{
			labelled(phone("Telephone1", 50), "Business Phone"), phone("Telephone2", 50), phone("Telephone3", 50), labelled(phone("MobilePhone", 20), "Mobile Phone"),
			Text("Fax", 50), Text("Pager", 20), labelled(web("WebSiteUrl"), "Website"), memo("Description", 2000), memo("QualificationComments", 2000),
			Text("SIC", 20), whole("NumberOfEmployees", 0, 1_000_000),
			money("Revenue", hundredTrillion), money("BudgetAmount", trillion), money("EstimatedAmount", trillion),
			number("EstimatedValue", Double, 0, billion, 2), dateOnly("EstimatedCloseDate"),
			flag("DecisionMaker", false), flag("EvaluateFit", false), flag("ConfirmInterest", false),
			labelled(choice("LeadQualityCode", 2, "1 Hot|2 Warm|3 Cold"), "Rating"),
			labelled(choice("LeadSourceCode", -1, "1 Advertisement|2 Employee Referral|3 External Referral|4 Partner|5 Public Relations|6 Seminar|7 Trade Show|8 Web|9 Word of Mouth|10 Other"), "Lead Source"),
			choice("BudgetStatus", -1, "0 No Committed Budget|1 May Buy|2 Can Buy|3 Will Buy"), choice("Need", -1, "0 Must have|1 Should have|2 Good to have|3 No need"),
			choice("PurchaseProcess", -1, "0 Individual|1 Committee|2 Unknown"),
			choice("PurchaseTimeFrame", -1, "0 Immediate|1 This Quarter|2 Next Quarter|3 This Year|4 Unknown"),
			choice("InitialCommunication", -1, "0 Contacted|1 Not Contacted"), choice("SalesStage", -1, "0 Qualify"), choice("SalesStageCode", 1, oneDefault),
			choice("PriorityCode", 1, oneDefault), choice("PreferredContactMethodCode", 1, contactWays), labelled(choice("IndustryCode", -1, industries), "Industry"),
			when("ScheduleFollowUp_Prospect"), when("ScheduleFollowUp_Qualify"),
		},
		permissions(false),
		[]*Column{
			labels(flag("FollowEmail", true), "Do Not Allow", "Allow"), flag("ParticipatesInWorkflow", false), readOnly(flag("Merged", false)),
			updateOnly(day("LastUsedInCampaign")),
			labelled(lookup("CampaignId", "campaign"), "Source Campaign"), labelled(lookup("ParentAccountId", "account"), "Parent Account for lead"),
			labelled(lookup("ParentContactId", "contact"), "Parent Contact for lead"), customer("CustomerId"),
			readOnly(lookup("AccountId", "account")), readOnly(lookup("ContactId", "contact")), readOnly(lookup("MasterId", "lead")),
		},
		address("Address1", oneDefault, oneDefault, oneDefault, 100), address("Address2", oneDefault, oneDefault, oneDefault, 100),
		states("0 Open=1|1 Qualified=3|2 Disqualified=4",
			"1 New@0|2 Contacted@0|3 Qualified@1|4 Lost@2|5 Cannot Contact@2|6 No Longer Interested@2|7 Canceled@2"),
		owned(), priced(), audit(),
	)
	user(t)
	for table, target := range map[string]string{"contact": "lead", "account": "lead"} {
		c := lookup("OriginatingLeadId", target)
		c.Label = "Originating Lead"
		b.d.Table(table).AddColumn(c)
		addShadow(b.d.Table(table), c)
	}
}

func (b *builder) list() {
	st := states("0 Active=0|1 Inactive=1", "0 Active@0|1 Inactive@1")
	updateOnly(st[0])
	memberType := createOnly(whole("MemberType", 0, billion))
	memberType.Label = "Targeted At Code"
	t := b.table("List", "lists", 4300, "ListId", "listname",
		[]*Column{
			labelled(require(Text("ListName", 128), SystemRequired), "Name"),
			createOnly(require(labels(flag("Type", false), "Static", "Dynamic"), SystemRequired)),
			createOnly(labelled(require(choice("CreatedFromCode", -1, "1 Account|2 Contact|4 Lead"), SystemRequired), "Targeted at")),
			memberType, memo("Query", 1_073_741_823), labels(labelled(flag("LockStatus", false), "Locked"), "No", "Yes"),
			readOnly(whole("MemberCount", 0, billion)), updateOnly(day("LastUsedOn")),
			labels(flag("DoNotSendOnOptOut", true), "No", "Yes"), flag("IgnoreInactiveListMembers", true),
			memo("Description", 2000), Text("Purpose", 512), Text("Source", 128), money("Cost", trillion),
		},
		st, owned(), priced(), audit(),
	)
	user(t)
	t.Label, t.Plural = "Marketing List", "Marketing Lists"

	entity := column("EntityId", Lookup)
	entity.Targets = []string{"account", "contact", "lead"}
	kind := column("EntityType", EntityName)
	kind.MaxLength = 64
	m := b.table("ListMember", "listmembers", 4301, "ListMemberId", "name",
		[]*Column{lookup("ListId", "list"), entity, readOnly(kind), readOnly(Text("Name", 100))},
		[]*Column{readOnly(lookup("OwningBusinessUnit", "businessunit")), readOnly(lookup("OwningUser", "systemuser"))}, audit(),
	)
	m.Intersect, m.ReadOnly, m.Ownership = true, true, "None"
	m.Label, m.Plural = "Marketing List Member", "Marketing List Members"
}

func (b *builder) campaign() {
	t := b.table("Campaign", "campaigns", 4400, "CampaignId", "name",
		[]*Column{
			require(Text("Name", 128), SystemRequired), labelled(Text("CodeName", 32), "Campaign Code"),
			labelled(choice("TypeCode", -1, "1 Advertisement|2 Direct Marketing|3 Event|4 Co-branding|5 Other"), "Campaign Type"),
			createOnly(labels(labelled(flag("IsTemplate", false), "Template"), "No", "Yes")), memo("Objective", 2000), memo("Description", 2000), Text("Message", 256),
			Text("PromotionCodeName", 128), email("EMailAddress"), when("ProposedStart"), when("ProposedEnd"), when("ActualStart"), when("ActualEnd"),
			whole("ExpectedResponse", 0, 100), money("ExpectedRevenue", trillion), money("BudgetedCost", trillion), money("OtherCost", trillion),
			readOnly(money("TotalActualCost", trillion)), readOnly(money("TotalCampaignActivityActualCost", trillion)),
		},
		states("0 Active=0|1 Inactive=6",
			"0 Proposed@0|1 Ready To Launch@0|2 Launched@0|3 Completed@0|4 Canceled@0|5 Suspended@0|6 Inactive@1"),
		owned(), priced(), audit(),
	)
	user(t)

	regarding := func() *Column { return labelled(lookup("RegardingObjectId", "campaign"), "Parent Campaign") }
	schedule := func() []*Column {
		return []*Column{
			Text("Subject", 200), memo("Description", 2000), when("ScheduledStart"), when("ScheduledEnd"), when("ActualStart"), when("ActualEnd"),
			choice("PriorityCode", 1, "0 Low|1 Normal|2 High"), regarding(),
		}
	}
	activity := b.table("CampaignActivity", "campaignactivities", 4402, "ActivityId", "subject", schedule(),
		[]*Column{
			choice("ChannelTypeCode", -1, "1 Phone|2 Appointment|3 Letter|4 Letter via Mail Merge|5 Fax|6 Fax via Mail Merge|7 Email|8 Email via Mail Merge|9 Other"),
			choice("TypeCode", -1, "1 Research|2 Content Preparation|3 Target Marketing List Creation|4 Lead Qualification|5 Content Distribution|6 Direct Initial Contact|7 Direct Follow-Up Contact|8 Reminder Distribution"),
			flag("DoNotSendOnOptOut", true), flag("IgnoreInactiveListMembers", true), whole("ExcludeIfContactedInXDays", 0, 9999),
			money("BudgetedCost", trillion), money("ActualCost", trillion),
		},
		states("0 Open=1|1 Closed=2|2 Canceled=3", "0 In Progress@0|1 Proposed@0|4 Pending@0|5 System Aborted@0|6 Completed@0|2 Closed@1|3 Canceled@2"),
		owned(), priced(), audit(),
	)
	user(activity).Activity = true
	require(activity.Column("regardingobjectid"), SystemRequired)

	response := b.table("CampaignResponse", "campaignresponses", 4401, "ActivityId", "subject", schedule(),
		[]*Column{
			choice("ChannelTypeCode", -1, "1 Email|2 Phone|3 Fax|4 Letter|5 Appointment|6 Others"),
			choice("ResponseCode", 1, "1 Interested|2 Not Interested|3 Do Not Send Marketing Materials|4 Error"),
			Text("FirstName", 50), Text("LastName", 50), Text("CompanyName", 100), email("EMailAddress"), phone("Telephone", 50), Text("Fax", 50),
			Text("PromotionCodeName", 250), when("ReceivedOn"),
		},
		states("0 Open=1|1 Closed=2|2 Canceled=3", "1 Open@0|2 Closed@1|3 Canceled@2"),
		owned(), priced(), audit(),
	)
	user(response).Activity = true

	item := b.table("CampaignItem", "campaignitems", 4403, "CampaignItemId", "",
		[]*Column{lookup("CampaignId", "campaign"), lookup("EntityId", "list")}, audit())
	item.Intersect, item.ReadOnly, item.Ownership = true, true, "None"
}

// subscription is the sample of a customer's own table.
func (b *builder) subscription() {
	own := []*Column{
		require(Text("lsx_Name", 200), ApplicationRequired), Text("lsx_ExternalId", 100), lookup("lsx_ContactId", "contact"), dateOnly("lsx_StartsOn"), when("lsx_RenewedAt"),
		money("lsx_Price", trillion), choice("lsx_Plan", 100_000_000, "100000000 Basic|100000001 Plus|100000002 Premium"),
		multi("lsx_Topics", "100000000 News|100000001 Offers|100000002 Events|100000003 Research"),
		flag("lsx_AutoRenew", true), whole("lsx_Seats", 1, 10_000), number("lsx_Discount", Decimal, 0, 100, 2), number("lsx_Score", Double, -1000, 1000, 5), memo("lsx_Notes", 4000),
	}
	for _, c := range own {
		c.Custom = true
	}
	t := b.table("lsx_Subscription", "lsx_subscriptions", 0, "lsx_SubscriptionId", "lsx_name", own, standardStates(), owned(), priced(), audit())
	user(t).Custom = true
	for _, c := range t.Columns() {
		if c.AttributeOf != "" && t.Column(c.AttributeOf).Custom || c.BaseOf != "" && t.Column(c.BaseOf).Custom {
			c.Custom = true
		}
	}
	t.Label, t.Plural = "Subscription", "Subscriptions"
}

func (b *builder) relations(apps Apps) {
	b.relate("contact", "parentcustomerid", "account", "contact_customer_accounts")
	b.relate("contact", "parentcustomerid", "contact", "contact_customer_contacts")
	b.relate("contact", "masterid", "contact", "contact_master_contact")
	b.relate("contact", "createdby", "systemuser", "lk_contactbase_createdby")
	b.relate("contact", "modifiedby", "systemuser", "lk_contactbase_modifiedby")
	b.relate("contact", "owninguser", "systemuser", "contact_owning_user")
	b.relate("contact", "owningbusinessunit", "businessunit", "business_unit_contacts")
	b.relate("contact", "preferredsystemuserid", "systemuser", "system_user_contacts")
	b.relate("contact", "transactioncurrencyid", "transactioncurrency", "transactioncurrency_contact")
	b.relate("account", "primarycontactid", "contact", "account_primary_contact")
	b.relate("account", "parentaccountid", "account", "account_parent_account")
	b.relate("account", "masterid", "account", "account_master_account")
	b.relate("account", "createdby", "systemuser", "lk_accountbase_createdby")
	b.relate("account", "modifiedby", "systemuser", "lk_accountbase_modifiedby")
	b.relate("account", "owninguser", "systemuser", "user_accounts")
	b.relate("account", "owningbusinessunit", "businessunit", "business_unit_accounts")
	b.relate("account", "transactioncurrencyid", "transactioncurrency", "transactioncurrency_account")
	b.relate("systemuser", "businessunitid", "businessunit", "business_unit_system_users")
	b.relate("businessunit", "parentbusinessunitid", "businessunit", "business_unit_parent_business_unit")
	b.relate("sdkmessageprocessingstep", "eventhandler", "serviceendpoint", "serviceendpoint_sdkmessageprocessingstep").Cascade.Delete = "Restrict"
	b.relate("sdkmessageprocessingstep", "sdkmessageid", "sdkmessage", "sdkmessageid_sdkmessageprocessingstep")
	b.relate("sdkmessageprocessingstep", "sdkmessagefilterid", "sdkmessagefilter", "sdkmessagefilterid_sdkmessageprocessingstep")
	b.relate("asyncoperation", "owningextensionid", "sdkmessageprocessingstep", "SdkMessageProcessingStep_AsyncOperations")
	b.d.RelateMany(&ManyToMany{
		SchemaName: "systemuserroles_association", Table1: "systemuser", Table2: "role", Intersect: "systemuserroles",
		Column1: "systemuserid", Column2: "roleid", Nav1: "systemuserroles_association", Nav2: "systemuserroles_association",
	})
	b.d.RelateMany(&ManyToMany{
		SchemaName: "roleprivileges_association", Table1: "role", Table2: "privilege", Intersect: "roleprivileges",
		Column1: "roleid", Column2: "privilegeid", Nav1: "roleprivileges_association", Nav2: "roleprivileges_association",
	})
	if apps.Sales {
		b.relate("contact", "originatingleadid", "lead", "contact_originating_lead")
		b.relate("account", "originatingleadid", "lead", "account_originating_lead")
		b.relate("lead", "campaignid", "campaign", "campaign_leads")
		b.relate("lead", "parentaccountid", "account", "lead_parent_account")
		b.relate("lead", "parentcontactid", "contact", "lead_parent_contact")
		b.relate("lead", "customerid", "account", "lead_customer_accounts")
		b.relate("lead", "customerid", "contact", "lead_customer_contacts")
		b.relate("lead", "masterid", "lead", "lead_master_lead")
		b.relate("lead", "createdby", "systemuser", "lk_leadbase_createdby")
		b.relate("lead", "modifiedby", "systemuser", "lk_leadbase_modifiedby")
		b.relate("lead", "owninguser", "systemuser", "lead_owning_user")
		b.relate("lead", "transactioncurrencyid", "transactioncurrency", "transactioncurrency_lead")
		b.relate("list", "transactioncurrencyid", "transactioncurrency", "transactioncurrency_list")
		b.relate("campaign", "transactioncurrencyid", "transactioncurrency", "TransactionCurrency_Campaign")
		b.relate("listmember", "listid", "list", "list_listmember")
		for _, table := range []string{"account", "contact", "lead"} {
			name := "list" + table + "_association"
			b.d.RelateMany(&ManyToMany{
				SchemaName: name, Table1: "list", Table2: table, Intersect: "listmember",
				Column1: "listid", Column2: "entityid", Nav1: name, Nav2: name,
			})
		}
		b.d.RelateMany(&ManyToMany{
			SchemaName: "campaignlist_association", Table1: "campaign", Table2: "list", Intersect: "campaignitem",
			Column1: "campaignid", Column2: "entityid", Nav1: "campaignlist_association", Nav2: "campaignlist_association",
		})
		for _, table := range []string{"campaignactivity", "campaignresponse"} {
			b.relate(table, "regardingobjectid", "campaign", "campaign_"+table+"s")
			for _, r := range b.d.s.relations {
				if r.Referencing == table && r.Column == "regardingobjectid" {
					r.Nav = "regardingobjectid_campaign_" + table
				}
			}
		}
	}
	if apps.Subscriptions {
		b.relate("lsx_subscription", "lsx_contactid", "contact", "lsx_contact_lsx_subscription")
	}
}

// platform declares the tables every organization has.
func (b *builder) platform() {
	org := func(t *Table) *Table { t.Ownership = "OrganizationOwned"; return t }

	bu := b.table("BusinessUnit", "businessunits", 10, "BusinessUnitId", "name",
		[]*Column{
			require(Text("Name", 160), SystemRequired), lookup("ParentBusinessUnitId", "businessunit"), readOnly(lookup("OrganizationId", "organization")),
			flag("IsDisabled", false), Text("DivisionName", 100), Text("CostCenter", 100),
		}, audit())
	bu.Ownership, bu.ChangeTracking, bu.Optimistic = "BusinessOwned", true, true

	organization := org(b.table("Organization", "organizations", 1019, "OrganizationId", "name",
		[]*Column{
			Text("Name", 160), whole("LanguageCode", 0, 20_000), whole("LocaleId", 0, 20_000), lookup("BaseCurrencyId", "transactioncurrency"),
			flag("IsAuditEnabled", false), whole("ExpireChangeTrackingInDays", 0, 365),
			choice("FullNameConventionCode", 1, "0 Last Name, First Name|1 First Name Last Name|2 Last Name, First Name, Middle Initial|3 First Name, Middle Initial, Last Name|4 Last Name, First Name, Middle Name|5 First Name, Middle Name, Last Name|6 Last Name, space, First Name|7 Last Name, no space, First Name"),
		}, audit()))
	organization.ChangeTracking = true

	org(b.table("TransactionCurrency", "transactioncurrencies", 9105, "TransactionCurrencyId", "currencyname",
		[]*Column{
			require(Text("CurrencyName", 100), SystemRequired), createOnly(require(Text("ISOCurrencyCode", 5), SystemRequired)), require(Text("CurrencySymbol", 13), SystemRequired),
			require(number("ExchangeRate", Decimal, 1e-10, 1e11, 10), SystemRequired), require(whole("CurrencyPrecision", 0, 4), SystemRequired),
		}, standardStates(), audit())).ChangeTracking = true

	su := b.table("SystemUser", "systemusers", 8, "SystemUserId", "fullname",
		[]*Column{
			readOnly(Text("FullName", 200)), Text("FirstName", 64), Text("LastName", 64), Text("MiddleName", 50), email("InternalEMailAddress"),
			Text("DomainName", 1024), Text("WindowsLiveID", 1024), require(lookup("BusinessUnitId", "businessunit"), SystemRequired),
			updateOnly(labels(labelled(flag("IsDisabled", false), "Status"), "Enabled", "Disabled")),
			choice("AccessMode", 0, "0 Read-Write|1 Administrative|2 Read|3 Support User|4 Non-interactive|5 Delegated Admin"),
			readOnly(flag("IsLicensed", false)), createOnly(guid("ApplicationId")), readOnly(Text("ApplicationIdUri", 1024)), createOnly(guid("AzureActiveDirectoryObjectId")),
			readOnly(whole("UserLicenseType", -2147483648, 2147483647)), flag("SetupUser", false), flag("IsIntegrationUser", false),
			Text("JobTitle", 128), Text("Title", 128),
		}, audit())
	su.Ownership, su.ChangeTracking, su.Optimistic = "BusinessOwned", true, true
	su.Label, su.Plural = "User", "Users"

	team := b.table("Team", "teams", 9, "TeamId", "name",
		[]*Column{
			require(Text("Name", 160), SystemRequired), require(lookup("BusinessUnitId", "businessunit"), SystemRequired), lookup("AdministratorId", "systemuser"),
			readOnly(flag("IsDefault", false)), memo("Description", 2000), choice("TeamType", 0, "0 Owner|1 Access|2 Security Group|3 Office Group"),
		}, audit())
	team.Ownership, team.ChangeTracking = "BusinessOwned", true

	role := b.table("Role", "roles", 1036, "RoleId", "name",
		[]*Column{
			require(Text("Name", 100), SystemRequired), require(lookup("BusinessUnitId", "businessunit"), SystemRequired),
			readOnly(lookup("ParentRootRoleId", "role")), readOnly(lookup("ParentRoleId", "role")), guid("RoleTemplateId"),
		}, audit())
	role.Ownership, role.Label, role.Plural = "BusinessOwned", "Security Role", "Security Roles"

	privilege := b.table("Privilege", "privileges", 1023, "PrivilegeId", "name",
		[]*Column{
			Text("Name", 100), flag("CanBeBasic", true), flag("CanBeLocal", true), flag("CanBeDeep", true), flag("CanBeGlobal", true),
			whole("AccessRight", 0, billion),
		})
	privilege.Ownership, privilege.ReadOnly = "None", true

	intersect := func(schemaName, set string, code int, id string, cols ...*Column) {
		t := b.table(schemaName, set, code, id, "", cols)
		t.Intersect, t.ReadOnly, t.Ownership = true, true, "None"
	}
	intersect("SystemUserRoles", "systemuserrolescollection", 15, "SystemUserRoleId", guid("SystemUserId"), guid("RoleId"))
	intersect("RolePrivileges", "roleprivilegescollection", 12, "RolePrivilegeId", guid("RoleId"), guid("PrivilegeId"), whole("PrivilegeDepthMask", 1, 15))

	message := b.table("SdkMessage", "sdkmessages", 4606, "SdkMessageId", "name",
		[]*Column{Text("Name", 256), flag("IsPrivate", false)}, audit())
	message.Ownership, message.ReadOnly = "None", true
	filter := b.table("SdkMessageFilter", "sdkmessagefilters", 4607, "SdkMessageFilterId", "name",
		[]*Column{
			Text("Name", 256), lookup("SdkMessageId", "sdkmessage"), Text("PrimaryObjectTypeCode", 64), Text("SecondaryObjectTypeCode", 64),
			flag("IsCustomProcessingStepAllowed", true),
		}, audit())
	filter.Ownership, filter.ReadOnly = "None", true

	endpoint := org(b.table("ServiceEndpoint", "serviceendpoints", 4618, "ServiceEndpointId", "name",
		[]*Column{
			require(Text("Name", 160), SystemRequired), memo("Description", 2000), require(Text("Url", 2000), SystemRequired),
			require(choice("Contract", -1, "1 OneWay|2 Queue|3 Rest|4 TwoWay|5 Topic|6 Queue (Persistent)|7 Event Hub|8 Webhook"), SystemRequired),
			require(choice("AuthType", -1, "0 Not Specified|1 ACS|2 SAS Key|3 SAS Token|4 Webhook Key|5 Http Header|6 Http Query String"), SystemRequired),
			writeOnly(Text("AuthValue", 2048)), choice("MessageFormat", -1, "1 Binary XML|2 Json|3 Text XML"),
		}, audit()))
	endpoint.Label, endpoint.Plural = "Service Endpoint", "Service Endpoints"
	plugin := b.table("PluginType", "plugintypes", 4602, "PluginTypeId", "name", []*Column{Text("Name", 256), Text("TypeName", 256)}, audit())
	plugin.Ownership, plugin.ReadOnly, plugin.Label, plugin.Plural = "OrganizationOwned", true, "Plug-in Type", "Plug-in Types"
	handler := require(lookup("EventHandler", "plugintype", "serviceendpoint"), SystemRequired)
	step := org(b.table("SdkMessageProcessingStep", "sdkmessageprocessingsteps", 4608, "SdkMessageProcessingStepId", "name",
		[]*Column{
			Text("Name", 256), memo("Description", 2000), require(lookup("SdkMessageId", "sdkmessage"), SystemRequired), lookup("SdkMessageFilterId", "sdkmessagefilter"), handler,
			require(choice("Stage", -1, "10 Pre-validation|20 Pre-operation|40 Post-operation"), SystemRequired),
			require(choice("Mode", -1, "0 Synchronous|1 Asynchronous"), SystemRequired), require(whole("Rank", 1, 2147483647), SystemRequired),
			require(choice("SupportedDeployment", -1, "0 Server Only|1 Microsoft Dynamics 365 Client for Outlook Only|2 Both"), SystemRequired),
			flag("AsyncAutoDelete", false), memo("FilteringAttributes", 100_000), memo("Configuration", 1_073_741_823),
		}, states("0 Enabled=1|1 Disabled=2", "1 Enabled@0|2 Disabled@1"), audit()))
	step.Label, step.Plural = "Sdk Message Processing Step", "Sdk Message Processing Steps"

	view := b.table("SavedQuery", "savedqueries", 1039, "SavedQueryId", "name",
		[]*Column{
			require(Text("Name", 200), SystemRequired), memo("Description", 2000), memo("FetchXml", 1_073_741_823), memo("LayoutXml", 1_073_741_823),
			Text("ReturnedTypeCode", 64), whole("QueryType", 0, billion), flag("IsDefault", false),
		}, standardStates(), audit())
	view.Ownership, view.Label, view.Plural = "OrganizationOwned", "View", "Views"

	org(b.table("Publisher", "publishers", 7101, "PublisherId", "friendlyname",
		[]*Column{
			createOnly(require(Text("UniqueName", 256), SystemRequired)), require(Text("FriendlyName", 256), SystemRequired), memo("Description", 2000),
			require(Text("CustomizationPrefix", 8), SystemRequired), whole("CustomizationOptionValuePrefix", 10_000, 99_999), readOnly(flag("IsReadonly", false)),
		}, audit()))
	org(b.table("Solution", "solutions", 7100, "SolutionId", "friendlyname",
		[]*Column{
			createOnly(require(Text("UniqueName", 65), SystemRequired)), require(Text("FriendlyName", 256), SystemRequired), memo("Description", 2000),
			require(Text("Version", 256), SystemRequired), createOnly(require(lookup("PublisherId", "publisher"), SystemRequired)),
			readOnly(flag("IsManaged", false)), readOnly(flag("IsVisible", true)), readOnly(when("InstalledOn")),
		}, audit()))
	component := b.table("SolutionComponent", "solutioncomponents", 7103, "SolutionComponentId", "",
		[]*Column{
			lookup("SolutionId", "solution"), guid("ObjectId"), choice("ComponentType", -1, "1 Entity|2 Attribute|10 Entity Relationship|14 Entity Key"),
			choice("RootComponentBehavior", -1, "0 Include Subcomponents|1 Do not include subcomponents|2 Include As Shell Only"),
		}, audit())
	component.Ownership, component.ReadOnly = "None", true

	job := b.table("AsyncOperation", "asyncoperations", 4700, "AsyncOperationId", "name",
		[]*Column{Text("Name", 256), whole("OperationType", 0, billion), lookup("OwningExtensionId", "sdkmessageprocessingstep"), memo("Message", 1_073_741_823), memo("FriendlyMessage", 10_000), when("StartedOn"), when("CompletedOn")},
		states("0 Ready=0|1 Suspended=10|2 Locked=20|3 Completed=30",
			"0 Waiting For Resources@0|10 Waiting@1|20 In Progress@2|21 Pausing@2|22 Canceling@2|30 Succeeded@3|31 Failed@3|32 Canceled@3"),
		owned(), audit())
	job.ReadOnly, job.Label, job.Plural = true, "System Job", "System Jobs"
}
