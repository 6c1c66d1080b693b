// Texts to begin with, by language: a good sentence, and one of each kind that is offered.

/** Said as the sample of a voice. */
export const SAMPLE_TEXTS = {
  english: "Hello! This is how I sound.", chinese: "你好！这就是我的声音。", japanese: "こんにちは。これが私の声です。",
  korean: "안녕하세요. 제 목소리는 이렇습니다.", german: "Hallo! So klinge ich.", french: "Bonjour ! Voici ma voix.",
  russian: "Здравствуйте! Вот так я звучу.", portuguese: "Olá! Esta é a minha voz.", spanish: "¡Hola! Así suena mi voz.",
  italian: "Ciao! Questa è la mia voce.",
};

/** The page itself holds the English sentence, so that it is there before any script runs. */
export const TEXTS = {
  english: {
    sentence: "The early train was late again, so we shared a taxi and talked about the weather all the way.",
    story: "Every evening the old keeper climbed the tower and lit the lamp. [0.5s] One night, far out at sea, another light answered him.",
    news: "Good evening. After three days of heavy rain, the river has begun to fall. The bridge in the old town will open again on Monday morning.",
    question: "Could you tell me which bus goes to the harbour, and is there time for a cup of coffee before it leaves?",
    numbers: "On 3 March 2024 at 8:45, 1,250 people bought tickets for $12.50 each; 7% of them came by bike.",
  },
  german: {
    sentence: "Der erste Zug hatte wieder Verspätung, also teilten wir uns ein Taxi und sprachen die ganze Fahrt über das Wetter.",
    story: "Jeden Abend stieg der alte Wärter auf den Turm und zündete die Lampe an. [0.5s] Eines Nachts antwortete ihm, weit draußen auf dem Meer, ein anderes Licht.",
    news: "Guten Abend. Nach drei Tagen Dauerregen sinkt der Fluss wieder. Die Brücke in der Altstadt öffnet am Montagmorgen.",
    question: "Können Sie mir sagen, welcher Bus zum Hafen fährt, und ist vorher noch Zeit für einen Kaffee?",
    numbers: "Am 3. März 2024 um 8:45 Uhr kauften 1250 Menschen Karten für je 12,50 €; 7 % von ihnen kamen mit dem Rad.",
  },
  french: {
    sentence: "Le premier train était encore en retard, alors nous avons partagé un taxi et parlé du temps pendant tout le trajet.",
    story: "Chaque soir, le vieux gardien montait en haut du phare et allumait la lampe. [0.5s] Une nuit, loin au large, une autre lumière lui répondit.",
    news: "Bonsoir. Après trois jours de fortes pluies, la rivière commence à baisser. Le pont de la vieille ville rouvrira lundi matin.",
    question: "Pourriez-vous me dire quel bus va au port, et si j'ai le temps de prendre un café avant son départ ?",
    numbers: "Le 3 mars 2024 à 8 h 45, 1250 personnes ont acheté un billet à 12,50 € ; 7 % d'entre elles sont venues à vélo.",
  },
  spanish: {
    sentence: "El primer tren volvió a llegar tarde, así que compartimos un taxi y hablamos del tiempo durante todo el camino.",
    story: "Cada noche el viejo farero subía a la torre y encendía la lámpara. [0.5s] Una noche, muy lejos en el mar, otra luz le respondió.",
    news: "Buenas noches. Tras tres días de lluvias intensas, el río empieza a bajar. El puente del casco antiguo se abrirá de nuevo el lunes por la mañana.",
    question: "¿Podría decirme qué autobús va al puerto, y si me da tiempo a tomar un café antes de que salga?",
    numbers: "El 3 de marzo de 2024 a las 8:45, 1250 personas compraron entradas de 12,50 €; el 7 % vino en bicicleta.",
  },
  portuguese: {
    sentence: "O primeiro trem atrasou de novo, então dividimos um táxi e falamos do tempo durante todo o caminho.",
    story: "Todas as noites o velho faroleiro subia à torre e acendia a lâmpada. [0.5s] Uma noite, longe no mar, outra luz respondeu.",
    news: "Boa noite. Depois de três dias de chuva forte, o rio começa a baixar. A ponte da cidade velha reabre na segunda-feira de manhã.",
    question: "Pode me dizer qual ônibus vai para o porto, e se dá tempo de tomar um café antes de ele sair?",
    numbers: "Em 3 de março de 2024, às 8h45, 1250 pessoas compraram ingressos de R$ 12,50; 7% delas vieram de bicicleta.",
  },
  italian: {
    sentence: "Il primo treno era di nuovo in ritardo, così abbiamo preso un taxi insieme e parlato del tempo per tutto il viaggio.",
    story: "Ogni sera il vecchio guardiano saliva sulla torre e accendeva la lampada. [0.5s] Una notte, lontano sul mare, un'altra luce gli rispose.",
    news: "Buonasera. Dopo tre giorni di forti piogge il fiume comincia a calare. Il ponte della città vecchia riaprirà lunedì mattina.",
    question: "Mi saprebbe dire quale autobus va al porto, e se faccio in tempo a prendere un caffè prima che parta?",
    numbers: "Il 3 marzo 2024 alle 8:45, 1250 persone hanno comprato un biglietto da 12,50 €; il 7% è venuto in bicicletta.",
  },
  russian: {
    sentence: "Утренний поезд снова опоздал, поэтому мы вместе взяли такси и всю дорогу говорили о погоде.",
    story: "Каждый вечер старый смотритель поднимался на башню и зажигал лампу. [0.5s] Однажды ночью далеко в море ему ответил другой огонёк.",
    news: "Добрый вечер. После трёх дней сильных дождей вода в реке начала спадать. Мост в старом городе откроют в понедельник утром.",
    question: "Скажите, пожалуйста, какой автобус идёт в порт, и успею ли я выпить кофе до его отправления?",
    numbers: "3 марта 2024 года в 8:45 билеты по 1250 рублей купили 640 человек; 7 % из них приехали на велосипеде.",
  },
  chinese: {
    sentence: "早班火车又晚点了，我们只好合打一辆出租车，一路上聊着天气。",
    story: "每天傍晚，守塔的老人都会爬上灯塔，点亮那盏灯。[0.5s]有一天夜里，远处的海面上，另一盏灯回应了他。",
    news: "晚上好。连续三天的大雨过后，河水开始回落。老城的大桥将于星期一早上重新开放。",
    question: "请问去港口坐哪一路公交车？开车之前，还来得及喝杯咖啡吗？",
    numbers: "2024年3月3日8点45分，有1250人买了票，每张12.5元，其中7%的人是骑自行车来的。",
  },
  japanese: {
    sentence: "始発の電車がまた遅れたので、私たちはタクシーに相乗りして、ずっと天気の話をしていました。",
    story: "毎晩、年老いた灯台守は塔に登り、明かりをともしました。[0.5s]ある夜、はるか沖で、別の明かりが応えました。",
    news: "こんばんは。三日間の大雨のあと、川の水位が下がり始めました。旧市街の橋は月曜日の朝に再び開通します。",
    question: "すみません、港へ行くバスはどれですか。出発までにコーヒーを飲む時間はありますか。",
    numbers: "2024年3月3日8時45分、1250人が1枚1200円のチケットを買い、そのうち7%が自転車で来ました。",
  },
  korean: {
    sentence: "첫차가 또 늦어서 우리는 택시를 함께 타고 가는 내내 날씨 이야기를 했어요.",
    story: "매일 저녁 늙은 등대지기는 탑에 올라 등불을 켰습니다. [0.5s] 어느 날 밤, 먼바다에서 또 다른 불빛이 그에게 대답했습니다.",
    news: "안녕하십니까. 사흘 동안 이어진 큰비가 그치고 강물이 줄어들기 시작했습니다. 구시가지 다리는 월요일 아침에 다시 열립니다.",
    question: "항구로 가는 버스가 몇 번인지 알려 주시겠어요? 출발하기 전에 커피 한 잔 마실 시간이 있을까요?",
    numbers: "2024년 3월 3일 8시 45분에 1250명이 12,500원짜리 표를 샀고, 그중 7%는 자전거를 타고 왔습니다.",
  },
};

/** Returns the language to show texts in: the one that is wanted if there are texts in it, else one of the model's. */
export function textLanguage(wanted, spoken = []) {
  const known = [wanted, ...(spoken.includes("english") ? ["english"] : []), ...spoken].find((language) => language in TEXTS);
  return known ?? "english";
}
