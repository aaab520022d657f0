package population

import (
	"strings"
	"sync"
)

// name is a personal name with the Latin form that its bearer uses in an address.
type name struct {
	text, latin string
	gender      int64 // contact.gendercode: 1 male, 2 female
}

type country struct {
	name, variant string // variant: another spelling found in the same column
	weight        int    // share of the sample company's market
	culture       string
	postal        string // # a digit, @ a capital letter
	phone         string
	numberFirst   bool // "12 Mill Lane" rather than "Mühlenweg 12"
	legal         string
	legalFirst    bool
	cities        []string
	states        []string
	streets       []string
}

type culture struct {
	firsts []name
	lasts  []name
}

type vocabulary struct {
	countries []country
	pick      []uint8 // country index by weight
	cultures  map[string]*culture
}

// words parses the lists once: they are only needed when a population is made.
var words = sync.OnceValue(func() *vocabulary {
	v := &vocabulary{cultures: map[string]*culture{}}
	for key, c := range cultureLists {
		cu := &culture{lasts: names(c.lasts, 0)}
		female, male := names(c.female, 2), names(c.male, 1)
		for i := range max(len(female), len(male)) { // alternate, so that neighbours differ
			if i < len(female) {
				cu.firsts = append(cu.firsts, female[i])
			}
			if i < len(male) {
				cu.firsts = append(cu.firsts, male[i])
			}
		}
		v.cultures[key] = cu
	}
	for i, line := range strings.Split(strings.TrimSpace(countryList), "\n") {
		f := strings.Split(line, "|")
		c := country{
			name: f[0], variant: f[1], culture: f[3], postal: f[4], phone: f[5], numberFirst: f[6] == "n",
			legal: strings.TrimPrefix(f[7], "^"), legalFirst: strings.HasPrefix(f[7], "^"),
			cities: strings.Split(f[8], ","), states: strings.Split(f[9], ","), streets: strings.Split(f[10], ","),
		}
		for _, d := range f[2] {
			c.weight = c.weight*10 + int(d-'0')
		}
		v.countries = append(v.countries, c)
		for range c.weight {
			v.pick = append(v.pick, uint8(i))
		}
	}
	return v
})

func names(list string, gender int64) []name {
	var out []name
	for w := range strings.FieldsSeq(list) {
		text, latin, ok := strings.Cut(w, "=")
		text = strings.ReplaceAll(text, "_", " ")
		if !ok {
			latin = latinize(text)
		}
		out = append(out, name{text, latin, gender})
	}
	return out
}

// latinize writes a name in the letters of an address: accents dropped, blanks
// and apostrophes left out.
func latinize(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z' || r == '-':
			b.WriteRune(r)
		default:
			b.WriteString(plainLetters[r])
		}
	}
	return b.String()
}

var plainLetters = map[rune]string{
	'ä': "ae", 'ö': "oe", 'ü': "ue", 'ß': "ss", 'é': "e", 'è': "e", 'ê': "e", 'ë': "e", 'á': "a", 'à': "a", 'â': "a", 'ã': "a", 'å': "a",
	'í': "i", 'ì': "i", 'î': "i", 'ï': "i", 'ı': "i", 'ó': "o", 'ò': "o", 'ô': "o", 'õ': "o", 'ø': "o", 'ő': "o", 'ú': "u", 'ù': "u", 'û': "u",
	'ç': "c", 'ć': "c", 'č': "c", 'ñ': "n", 'ń': "n", 'ł': "l", 'ś': "s", 'š': "s", 'ş': "s", 'ż': "z", 'ź': "z", 'ž': "z", 'ą': "a", 'ę': "e",
	'ğ': "g", 'æ': "ae", 'œ': "oe", 'ð': "d", 'þ': "th", 'ý': "y", 'ř': "r", 'ě': "e", 'ů': "u", 'đ': "d",
}

// countryList: name|variant|weight|culture|postal|phone|n = number before the
// street|legal form (^ before the name)|cities|states|streets.
const countryList = `
United States|USA|20|en|#####|+1 212 555 01##|n|Inc.|Springfield,Riverton,Fairview,Oakdale,Lakewood,Milford,Brookhaven|CA,NY,TX,IL,WA,MA,CO|Maple Street,Oak Avenue,Harbor Road,Mill Lane,Prospect Drive
United Kingdom|UK|14|en|@@# #@@|+44 1632 96####|n|Ltd|London,Manchester,Bristol,Leeds,Edinburgh,Cardiff,Belfast|Greater London,Lancashire,Avon,Yorkshire,Lothian,South Glamorgan,Antrim|High Street,Station Road,Church Lane,King's Parade,Canal Walk
Germany|Deutschland|16|de|#####|+49 30 23125###|s|GmbH|Berlin,München,Hamburg,Köln,Stuttgart,Düsseldorf,Lübeck|Berlin,Bayern,Hamburg,Nordrhein-Westfalen,Baden-Württemberg,Nordrhein-Westfalen,Schleswig-Holstein|Hauptstraße,Mühlenweg,Bahnhofstraße,Gärtnerstraße,Am Alten Markt
France|Frankreich|8|fr|#####|+33 1 99 00 ## ##|n|SAS|Paris,Lyon,Orléans,Besançon,Nîmes,Angoulême|Île-de-France,Auvergne-Rhône-Alpes,Centre-Val de Loire,Bourgogne-Franche-Comté,Occitanie,Nouvelle-Aquitaine|rue de l'Église,avenue du Général,boulevard de la Forêt,place du Marché
Spain|España|6|es|#####|+34 910 55 ## ##|s|S.L.|Madrid,A Coruña,Málaga,Cádiz,València|Madrid,Galicia,Andalucía,Andalucía,Comunitat Valenciana|Calle Mayor,Avenida de la Constitución,Plaza España,Paseo del Río
Italy|Italia|5|it|#####|+39 06 555 ####|s|S.r.l.|Roma,Milano,Forlì,Torino,Bologna|RM,MI,FC,TO,BO|Via Garibaldi,Corso Italia,Piazza della Libertà,Via dei Mille
Poland|Polska|5|pl|##-###|+48 22 555 ## ##|s|Sp. z o.o.|Warszawa,Kraków,Łódź,Gdańsk,Wrocław|mazowieckie,małopolskie,łódzkie,pomorskie,dolnośląskie|ul. Długa,ul. Świętokrzyska,al. Niepodległości,ul. Źródlana
Sweden|Sverige|4|sv|### ##|+46 8 465 00###|s|AB|Stockholm,Göteborg,Malmö,Örebro,Umeå|Stockholms län,Västra Götaland,Skåne,Örebro län,Västerbotten|Storgatan,Björkvägen,Ängsstigen,Kungsgatan
Netherlands|Nederland|4|nl|#### @@|+31 20 555 ####|s|B.V.|Amsterdam,Utrecht,Eindhoven,Groningen,'s-Hertogenbosch|Noord-Holland,Utrecht,Noord-Brabant,Groningen,Noord-Brabant|Dorpsstraat,Molenweg,Kerklaan,Oude Gracht
Türkiye|Turkey|3|tr|#####|+90 212 555 ## ##|s|A.Ş.|İstanbul,Ankara,İzmir,Eskişehir|İstanbul,Ankara,İzmir,Eskişehir|Atatürk Caddesi,Çınar Sokak,İstiklal Caddesi
Greece|Ελλάδα|2|el|### ##|+30 21 0555 ####|s|Α.Ε.|Αθήνα,Θεσσαλονίκη,Πάτρα|Αττική,Κεντρική Μακεδονία,Δυτική Ελλάδα|Λεωφόρος Ειρήνης,Οδός Ερμού,Οδός Αγίου Νικολάου
Ukraine|Україна|2|uk|#####|+380 44 555 ####|s|^ТОВ|Київ,Львів,Одеса|Київська,Львівська,Одеська|вулиця Садова,проспект Миру,вулиця Шевченка
Egypt|مصر|2|ar|#####|+20 2 5555 ####|n|^شركة|القاهرة,الإسكندرية,الجيزة|القاهرة,الإسكندرية,الجيزة|شارع النيل,شارع الحرية,ميدان التحرير
Israel|ישראל|2|he|#######|+972 3 555 ####|s|בע״מ|תל אביב,ירושלים,חיפה|תל אביב,ירושלים,חיפה|רחוב הרצל,שדרות רוטשילד,רחוב הנביאים
Japan|日本|2|ja|###-####|+81 3 5555 ####|s|^株式会社|東京,大阪,京都|東京都,大阪府,京都府|銀座,中央通り,桜町
China|中国|2|zh|######|+86 10 5555 ####|s|有限公司|北京,上海,杭州|北京市,上海市,浙江省|人民路,长安街,解放路
South Korea|대한민국|1|ko|#####|+82 2 555 ####|s|^주식회사|서울,부산|서울특별시,부산광역시|세종대로,한강로
India|Bharat|2|hi|######|+91 11 5555 ####|n|Pvt Ltd|दिल्ली,Mumbai,Bengaluru|Delhi,Maharashtra,Karnataka|MG Road,Station Road,गांधी मार्ग
`

var cultureLists = map[string]struct{ female, male, lasts string }{
	"en": {
		"Alice Beth Chloë Daisy Eleanor Fiona Grace Hannah Isla Jasmine Kate Lucy Megan Nora Olivia Phoebe Quinn Rosie Sophie Tara Una Violet Willow Zara",
		"Adam Ben Callum Daniel Ethan Finn George Harry Isaac Jack Kieran Liam Mason Noah Oscar Patrick Reece Samuel Theo Uri Victor Wesley Xavier Zach",
		"Ashdown Barlow Carrick Dunmore Eastgate Fairbairn Garside Holloway Inglewood Jessop Kellaway Longridge Merrick Northcott O'Connell Pemberton Quayle Ravenhill Selwood Thackeray Underhill Vickers Wetherby Yardley St._John Brontë De_la_Cruz",
	},
	"de": {
		"Anneliese Birgit Clara Dörte Elke Friederike Gerda Heike Ilse Jutta Käthe Lieselotte Mareike Nele Ottilie Petra Renate Sabine Tanja Ute Walburga Zita",
		"Albrecht Bernd Christoph Detlef Eberhard Friedrich Günther Holger Ingo Jürgen Kai-Uwe Lothar Moritz Norbert Otto Philipp Rüdiger Sören Till Uwe Volker Wolfgang",
		"Ackermann Böhm Claußen Dreßler Eichhorn Förster Größmann Hübner Jäger Köhler Löwe Müller-Lüdenscheid Nußbaum Oberländer Pfäffle Quandt Röder Schäfer Thüringer Uhlmann Vögele Weiß Zöllner von_der_Heide",
	},
	"fr": {
		"Amélie Béatrice Cécile Delphine Élodie Françoise Geneviève Hélène Inès Joëlle Léa Maëlle Noémie Océane Pénélope Rosalie Solène Théa Valérie Zoé",
		"André Benoît Cédric Didier Étienne François Gaël Hervé Jean-Luc Kévin Loïc Mathéo Noël Olivier Pascal Rémi Sébastien Théo Valentin Yves",
		"Arnoux Bélanger Chênevert Desrosiers Évrard Fontenoy Garçon L'Hermitte Jolivet Lefèvre Mérieux Naudé d'Orsay Préaux Rousselet Saint-Aubin Thévenot Vasseur Delacroix",
	},
	"es": {
		"Aitana Belén Carmen Dolores Elvira Fátima Guadalupe Inés Jimena Lucía Martina Núria Paloma Raquel Sofía Teresa Verónica Ximena",
		"Álvaro Bruno César Diego Emilio Fermín Gonzalo Hugo Iñigo Joaquín León Martín Nicolás Óscar Pablo Ramón Sergio Tomás",
		"Aguirre Benítez Cárdenas Domínguez Echeverría Fuentes_Núñez Gálvez Herrera Ibáñez Jiménez_Ruiz Lozano Muñoz Nogueira Ordóñez Peñalver Quirós Rodríguez Sáenz Urrutia Yáñez",
	},
	"it": {
		"Alessia Beatrice Chiara Donatella Elisa Federica Ginevra Ilaria Lucrezia Mirella Noemi Ornella Patrizia Rosalba Serena Tiziana Viola",
		"Alessandro Bruno Corrado Dario Edoardo Fabrizio Giosuè Ivano Leonardo Massimo Nicolò Orlando Pierluigi Raffaele Salvatore Tommaso Vito",
		"Amadori Bellucci Cattaneo D'Angelo Esposito Ferrero Giordano Lombardi Marchetti Nardò Orsini Palumbo Quaranta Rinaldi Santoro Tedeschi Valentini Zanetti",
	},
	"pl": {
		"Agnieszka Bożena Celina Danuta Elżbieta Grażyna Hanna Iwona Jadwiga Kinga Łucja Małgorzata Natalia Oliwia Paulina Róża Sylwia Żaneta",
		"Andrzej Bogusław Cezary Damian Eugeniusz Grzegorz Henryk Ireneusz Jacek Krzysztof Łukasz Michał Norbert Paweł Radosław Stanisław Tadeusz Zbigniew",
		"Adamczyk Błaszczyk Ciesielski Dąbrowski Fijałkowski Głowacki Hołownia Jaśkiewicz Kołodziej Łuczak Mróz Niedźwiecki Ożóg Pietrzyk Różycki Śliwa Trzaska Wójcik Żak",
	},
	"sv": {
		"Annika Britta Cajsa Ebba Frida Gunnel Hjördis Ingrid Kerstin Linnéa Märta Nanna Pernilla Rut Solveig Tyra Ylva Åsa",
		"Anders Björn Claes Einar Fredrik Göran Håkan Ivar Kjell Lasse Måns Nils Olof Pär Rickard Sven Torbjörn Åke",
		"Ahlgren Bäckström Cederlöf Dahlqvist Ekström Fagerlund Göransson Hägglund Isaksson Johansson Källström Lindgren Månsson Nyström Öberg Persson Sjögren Åkerman",
	},
	"nl": {
		"Anouk Bregje Carlijn Demi Esmée Fenna Geertje Hanneke Ineke Joke Lieke Marijke Noor Roos Sanne Tess Wilhelmina",
		"Arjan Bram Cornelis Dirk Evert Floris Gijs Hendrik Joost Koen Lars Maarten Niek Pieter Ruben Sjoerd Teun",
		"Aalbers van_den_Berg Claassen de_Vries van_Dijk Geurts Hoekstra Janssen Kuipers van_der_Linden Mulder Nijhof Postma van_Rijn Smit 't_Hart Verhoeven Wiersma Zijlstra",
	},
	"tr": {
		"Ayşe Büşra Canan Deniz Elif Fatma Gülşen Hülya Işıl Leyla Müge Nilüfer Özlem Pınar Sevgi Şule Tuğba Zeynep",
		"Ahmet Barış Cem Doğan Emre Ferhat Gökhan Hüseyin İbrahim Kerem Mehmet Onur Özgür Rıza Serkan Şahin Tolga Uğur",
		"Acar Bozkurt Çelik Demir Erdoğdu Güneş Işık Kılıç Koç Öztürk Polat Sarıkaya Şimşek Taş Uçar Ünal Yıldırım Yılmaz",
	},
	"el": {
		"Άννα=anna Βασιλική=vasiliki Γεωργία=georgia Δήμητρα=dimitra Ελένη=eleni Ζωή=zoi Θεοδώρα=theodora Ιωάννα=ioanna Κατερίνα=katerina Μαρία=maria",
		"Αλέξανδρος=alexandros Βασίλης=vasilis Γιώργος=giorgos Δημήτρης=dimitris Ευάγγελος=evangelos Ηλίας=ilias Θανάσης=thanasis Κώστας=kostas Νίκος=nikos Σπύρος=spyros",
		"Αντωνίου=antoniou Βλάχος=vlachos Γεωργιάδης=georgiadis Δημητρίου=dimitriou Κωνσταντίνου=konstantinou Λάμπρου=lamprou Μακρής=makris Νικολάου=nikolaou Παπαδάκης=papadakis Ρήγας=rigas Σταύρου=stavrou",
	},
	"uk": {
		"Анна=anna Богдана=bohdana Віра=vira Галина=halyna Дарина=daryna Євгенія=yevheniia Зоряна=zoriana Ірина=iryna Леся=lesia Оксана=oksana Софія=sofiia",
		"Андрій=andrii Богдан=bohdan Василь=vasyl Григорій=hryhorii Дмитро=dmytro Євген=yevhen Захар=zakhar Ігор=ihor Леонід=leonid Олексій=oleksii Тарас=taras",
		"Бондаренко=bondarenko Гончар=honchar Дорошенко=doroshenko Заєць=zaiets Іваненко=ivanenko Коваленко=kovalenko Лисенко=lysenko Мельник=melnyk Пономар=ponomar Савчук=savchuk Ткаченко=tkachenko Шевчук=shevchuk Щербак=shcherbak",
	},
	"ar": {
		"أمينة=amina بسمة=basma جميلة=jamila دينا=dina رانيا=rania سلمى=salma فاطمة=fatima ليلى=layla مريم=mariam نور=nour هدى=huda",
		"أحمد=ahmed باسم=bassem جمال=gamal حسن=hassan خالد=khaled رامي=ramy سامي=samy طارق=tarek كريم=karim محمود=mahmoud يوسف=youssef",
		"البناء=elbanna الحداد=elhaddad الخطيب=elkhatib السيد=elsayed الشريف=elsherif العطار=elattar الفقي=elfeky القاضي=elkady المصري=elmasry النجار=elnaggar الهادي=elhady عبد_الله=abdallah منصور=mansour",
	},
	"he": {
		"אביגיל=avigail ברכה=bracha דנה=dana הדס=hadas חנה=hana טליה=talia יעל=yael מיכל=michal נועה=noa רחל=rachel",
		"אבנר=avner בועז=boaz דוד=david זאב=zeev חיים=haim יונתן=yonatan משה=moshe נדב=nadav עמית=amit רועי=roi",
		"אברהמי=avrahami בן-דוד=bendavid גולן=golan הררי=harari זהבי=zehavi יערי=yaari כרמלי=carmeli לביא=lavi מזרחי=mizrahi נוימן=neuman שפירא=shapira",
	},
	"ja": {
		"愛=ai 花子=hanako 美咲=misaki 直子=naoko 桜=sakura 陽子=yoko 恵=megumi 智子=tomoko 由美=yumi さくら=sakurako",
		"大輔=daisuke 健太=kenta 翔=sho 太郎=taro 拓也=takuya 誠=makoto 浩二=koji 隆=takashi 悠斗=yuto 蓮=ren",
		"佐藤=sato 鈴木=suzuki 高橋=takahashi 田中=tanaka 渡辺=watanabe 伊藤=ito 山本=yamamoto 中村=nakamura 小林=kobayashi 加藤=kato 吉田=yoshida 山田=yamada 佐々木=sasaki",
	},
	"zh": {
		"芳=fang 静=jing 丽=li 敏=min 娜=na 秀英=xiuying 婷婷=tingting 雪=xue 燕=yan 玉兰=yulan",
		"伟=wei 强=qiang 磊=lei 军=jun 勇=yong 杰=jie 涛=tao 明=ming 超=chao 建国=jianguo",
		"王=wang 李=li 张=zhang 刘=liu 陈=chen 杨=yang 黄=huang 赵=zhao 吴=wu 周=zhou 欧阳=ouyang 司马=sima 诸葛=zhuge",
	},
	"ko": {
		"지우=jiwoo 서연=seoyeon 민서=minseo 하은=haeun 수빈=subin 예은=yeeun 유진=yujin 은지=eunji 혜진=hyejin 미영=miyoung",
		"민준=minjun 서준=seojun 도윤=doyoon 지훈=jihoon 현우=hyunwoo 성민=sungmin 동현=donghyun 준호=junho 재석=jaeseok 영수=youngsoo",
		"김=kim 이=lee 박=park 최=choi 정=jung 강=kang 조=cho 윤=yoon 장=jang 임=lim 한=han 오=oh 남궁=namgung",
	},
	"hi": {
		"अनीता=anita Deepika Gauri आशा=asha Kavita Lakshmi मीरा=meera Neha Pooja Radha सुनीता=sunita Shreya",
		"अमित=amit Arjun Dev Ganesh हरीश=harish Karan Manoj नरेश=naresh Prakash Rahul संजय=sanjay Vikram",
		"Agarwal Bhatt Chopra देसाई=desai Gupta Iyer Joshi कपूर=kapoor Mehta Nair पटेल=patel Reddy शर्मा=sharma",
	},
}

// A company is named by one word of each list: 96 × 84 × 30 = 241,920 names.
var (
	brandWords = strings.Fields("Alder Amber Anchor Arrow Aspen Aurora Badger Basalt Beacon Birch Bramble Breeze Brook Cedar Cinder Clover Cobalt Comet Copper Coral Crane Crest " +
		"Curlew Cypress Dapple Delta Drift Dune Ember Falcon Fathom Fern Finch Flint Garnet Ginger Glacier Granite Grove Gull Harbour Hazel Heron Holly Indigo Iris Ivory Jasper " +
		"Juniper Kestrel Kite Lantern Larch Laurel Linden Lotus Lumen Magnet Maple Marble Marsh Meadow Meridian Mint Moss Nettle Nimbus Oak Onyx Opal Orchard Osprey Otter Pebble " +
		"Pepper Pine Plover Poppy Prism Quarry Quartz Quill Raven Reed Ridge Robin Rowan Saffron Sorrel Sparrow Spruce Thistle Topaz Umber Willow Wren")
	placeWords = strings.Fields("Acre Arch Bank Barn Bay Bell Bend Bluff Border Bridge Canal Castle Chapel Cliff Coast Corner Court Creek Cross Dale Dock Dome Edge Falls Farm Field " +
		"Forge Fork Gate Glen Green Hall Haven Heath Hill Hollow House Island Junction Kiln Knoll Lake Lane Ledge Lock Lodge Loft Manor Market Mill Moor Mount Narrows Park Pass Path " +
		"Peak Pier Plain Point Pond Port Quay Rise River Road Rock Row Shore Spring Square Station Stone Summit Terrace Tower Vale View Village Walk Wall Water Wharf")
	tradeWords = strings.Fields("Advisory Analytics Apparel Bakery Biotech Ceramics Chemicals Construction Dental Design Electronics Energy Engineering Foods Furniture Insurance Legal " +
		"Logistics Machinery Media Metals Optics Packaging Pharma Print Robotics Software Textiles Tools Travel")
	jobTitles = []string{
		"Managing Director", "Head of Marketing", "Marketing Manager", "CRM Manager", "Sales Representative", "Account Executive", "Purchasing Manager", "Buyer", "Engineer",
		"Software Developer", "Controller", "Accountant", "Chief Executive Officer", "Chief Technology Officer", "Product Manager", "Office Manager", "Assistant", "Consultant",
		"Geschäftsführerin", "Leiter Einkauf", "Directrice générale", "Jefe de ventas", "Kierownik działu", "Verkställande direktör", "Team Lead, R&D", "HR Business Partner", "Trainee",
	}
	departments = []string{"Marketing", "Sales", "Purchasing", "Engineering", "Finance", "IT", "Human Resources", "Operations", "Forschung & Entwicklung", "Customer Service"}
	salutations = [3]string{"", "Mr", "Ms"}
	notes       = []string{
		"Met at the spring trade fair; asked for the new catalogue.", "Prefers to be called in the morning.", "Wünscht Rückruf nach 17 Uhr.",
		"Introduced by a partner. Long-standing customer of a competitor.", "Interested in the maintenance contract \"Plus\"; price < 5.000 €.", "Moved office, address to be confirmed.",
		"Line one\nLine two\twith a tab & <angle brackets>", "Very happy customer 🎉",
	}
)
